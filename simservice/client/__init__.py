"""What an agent imports: a remote world as a Gymnasium environment. Importing it registers `simservice/World-v0`."""

import os

from simservice.client.registration import register

# gRPC reads this when it is imported, which the first connection does: its older client wakes fewer threads a message.
# The listener is a server's: one that this process starts inherits the variable.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")

register()
