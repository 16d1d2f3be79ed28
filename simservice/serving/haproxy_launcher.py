"""Stands in for the HAProxy program that Ray Serve starts: ties it to its parent's life and amends its configuration.

Run as a script by a bare interpreter, so it knows the standard library only. Why it is needed: Ray Serve starts HAProxy
as a plain child, which outlives a killed parent; its template lets the statistics pages listen on every address of the
machine; and a call that names no application, or an unknown one, gets an answer that does not tell what there is.
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
    """The configuration with `host` for listeners that have no address."""
    return re.sub(r"^(\s*bind )\*?(:\d+)", rf"\g<1>{host}\g<2>", text, flags=re.MULTILINE)


def lead_strays(text: str) -> str:
    """The configuration with gRPC calls of no or an unknown application led to the first one.

    Any world's replica can list all worlds, and says which there are when it is asked for one that is not there.
    """
    head, frontend, rest = text.partition("\nfrontend grpc_frontend\n")
    section, end, tail = rest.partition("\nbackend ")
    backends = re.findall(r"^\s*use_backend (\S+) if is_\1$", section, flags=re.MULTILINE)
    if not backends:
        return text
    unknown = " ".join(f"!is_{backend}" for backend in backends)
    rules = f"    http-request del-header application if {unknown}\n    default_backend {backends[0]}"
    section = re.sub(r"^\s*default_backend \S+$", rules, section, flags=re.MULTILINE)
    return head + frontend + section + end + tail


def main(arguments: list[str]) -> None:
    """Becomes HAProxy."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if "-f" in arguments:
        path = arguments[arguments.index("-f") + 1]
        with open(path, encoding="utf-8") as file:
            text = lead_strays(file.read())
        host = os.environ.get(HOST_VARIABLE)
        with open(path, "w", encoding="utf-8") as file:
            file.write(restrict(text, host) if host else text)
    program = os.environ[PROGRAM_VARIABLE]
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
