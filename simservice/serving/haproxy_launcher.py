"""Stands in for the HAProxy program that Ray Serve starts: ties it to its parent's life and to one address.

Run as a script by a bare interpreter, so it knows the standard library only. Ray Serve starts HAProxy as a plain child,
which outlives a killed parent, and its template lets the statistics pages listen on every address of the machine.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys

PR_SET_PDEATHSIG = 1
HOST_VARIABLE = "SIMSERVICE_BIND_HOST"
PROGRAM_VARIABLE = "SIMSERVICE_HAPROXY_PROGRAM"


def restrict(text: str, host: str) -> str:
    """A HAProxy configuration whose listeners without an address listen on `host`."""
    return re.sub(r"^(\s*bind )\*?(:\d+)", rf"\g<1>{host}\g<2>", text, flags=re.MULTILINE)


def main(arguments: list[str]) -> None:
    """Becomes HAProxy."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    host = os.environ.get(HOST_VARIABLE)
    if host and "-f" in arguments:
        path = arguments[arguments.index("-f") + 1]
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(restrict(text, host))
    program = os.environ[PROGRAM_VARIABLE]
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
