"""Has gRPC imported in such a way that the thread that waits for an answer is also the one that reads the socket.

gRPC's newer event engine reads on threads of its own and hands what came over: two wake-ups more a message, and twice
the processor time. gRPC reads which of its ways it is to take from the environment, once, when it is imported, and has
no other setting for it; so the variable stands there for that moment only.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

VARIABLE, OLDER_WAY = "GRPC_EXPERIMENTS", "-event_engine_client"
KNOWN_TO = "1.85."  # releases that have it; one that knows it no longer would complain on stderr


def import_grpc() -> None:
    """Imports grpc, unless somebody has done so, or has said how, or will fork, for which the older way is not."""
    if "grpc" in sys.modules or VARIABLE in os.environ or "GRPC_ENABLE_FORK_SUPPORT" in os.environ:
        return
    if not version("grpcio").startswith(KNOWN_TO):
        return
    os.environ[VARIABLE] = OLDER_WAY
    try:
        import grpc  # noqa: F401, PLC0415 - for what it reads now
    finally:
        del os.environ[VARIABLE]
