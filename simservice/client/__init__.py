"""What an agent imports: a remote world as a Gymnasium environment. Importing it registers `simservice/World-v0`."""

from simservice.client.polling import import_grpc

import_grpc()  # before anything else does

from simservice.client.registration import register  # noqa: E402

register()
