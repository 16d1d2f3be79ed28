"""gRPC, imported in such a way that the thread that waits for an answer is also the one that reads the socket.

gRPC's newer event engine reads on threads of its own and hands what came over: two wake-ups more a message, and twice
the processor time. gRPC reads which of its ways it is to take from the environment, once, when it is imported, and has
no other setting for it; so the variable stands there for that moment only. Whoever has imported gRPC before, has set
the variable, or wants to fork (for which the older way is not) has decided otherwise.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

VARIABLE, OLDER_WAY = "GRPC_EXPERIMENTS", "-event_engine_client"
KNOWN_TO = "1.85."  # releases that have it; one that knows it no longer would complain on stderr

_ours = (
    "grpc" not in sys.modules
    and not {VARIABLE, "GRPC_ENABLE_FORK_SUPPORT"} & set(os.environ)
    and version("grpcio").startswith(KNOWN_TO)
)
if _ours:
    os.environ[VARIABLE] = OLDER_WAY
try:
    import grpc
finally:
    if _ours:
        del os.environ[VARIABLE]

__all__ = ["KNOWN_TO", "OLDER_WAY", "VARIABLE", "grpc"]
