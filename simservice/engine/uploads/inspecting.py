"""The process that inspects policies: it has the libraries loaded, and forks a bounded child for every file.

python -m simservice.engine.uploads.inspecting DESCRIPTOR
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any

from simservice.engine.uploads.inspection import inspect
from simservice.engine.uploads.limits import PolicyLimits
from simservice.engine.uploads.messages import receive, send
from simservice.engine.uploads.requirements import Requirements
from simservice.errors import InvalidPolicy, PolicyLimitExceeded, SimserviceError

IDLE_S = 600.0
"""Without anything to inspect for so long the process ends; the next file starts another one."""

NICE = 19  # whoever steps a session goes first
OPEN_FILES = 64
_PR_SET_PDEATHSIG = 1
_MEMORY = "its inspection needs more memory than it may"


def main(descriptor: int) -> None:
    """Answers one frame after another until the other side ends or is silent."""
    _end_with_parent()
    # Ctrl-C reaches the service's whole session. A session of its own would keep it away, and with it what being nice
    # means: Linux weighs sessions against each other before it looks at their processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    peer = socket.socket(fileno=descriptor)
    while select.select([peer], [], [], IDLE_S)[0]:
        try:
            head, blobs = receive(peer)
            send(peer, *_bounded(head, blobs))
        except (EOFError, OSError):
            return


def _bounded(head: dict[str, Any], blobs: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """What a child says of the file, or how it ended."""
    limits = PolicyLimits(**head["limits"])
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        status = 1
        try:
            ours.close()
            _bind(limits)
            _answer(theirs, head, blobs, limits)
            status = 0
        finally:
            os._exit(status)
    theirs.close()
    ours.settimeout(limits.inspection_s)
    deadline = time.monotonic() + limits.inspection_s
    answer: tuple[dict[str, Any], list[bytes]] | None = None
    try:
        answer = receive(ours)
    except (EOFError, OSError, ValueError):
        pass
    finally:
        ours.close()
        late = time.monotonic() >= deadline
        if late:
            os.kill(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
    told, found = answer or (_told(_ended(status, late, limits)), [])
    return {**told, "processor_s": used.ru_utime + used.ru_stime}, found


def _answer(peer: socket.socket, head: dict[str, Any], blobs: list[bytes], limits: PolicyLimits) -> None:
    *samples, file = blobs
    try:
        graph, weights = inspect(file, Requirements.from_head(head, tuple(samples)), limits)
        record = graph.to_bytes()
    except SimserviceError as error:
        send(peer, _told(error))
    except MemoryError:
        send(peer, _told(_out_of_memory(limits)))
    except Exception as error:  # a library met what it did not expect: the file's fault, and told as such
        send(peer, _told(InvalidPolicy(f"its inspection failed ({type(error).__name__})", "export the policy anew")))
    else:
        send(peer, {}, [record, weights])


def _bind(limits: PolicyLimits) -> None:
    """Bounds this process: memory, processor, files; what it has open it keeps."""
    _end_with_parent()
    pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115 - one line before everything is bounded
    memory = pages * resource.getpagesize() + limits.inspection_bytes
    for kind, soft, hard in (
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_CPU, limits.inspection_cpu_s, limits.inspection_cpu_s + 1),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
    ):
        resource.setrlimit(kind, (soft, hard))


def _ended(status: int, late: bool, limits: PolicyLimits) -> SimserviceError:
    """Why a child ended without an answer."""
    if late:
        return PolicyLimitExceeded(
            "seconds of its inspection",
            found=f"over {limits.inspection_s:g}",
            most=limits.inspection_s,
            remedy="send a smaller network, or try again when the machine is less busy",
        )
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number in (signal.SIGXCPU, signal.SIGKILL):
        return PolicyLimitExceeded(
            "processor seconds of its inspection",
            found=f"over {limits.inspection_cpu_s}",
            most=limits.inspection_cpu_s,
            remedy="send a smaller network",
        )
    if number == signal.SIGABRT:  # how C++ ends where there is no memory left
        return _out_of_memory(limits)
    how = f"by {signal.Signals(number).name}" if number else f"with status {os.waitstatus_to_exitcode(status)}"
    return InvalidPolicy(f"its inspection ended {how}", "export the policy anew, and report it if that helps not")


def _out_of_memory(limits: PolicyLimits) -> PolicyLimitExceeded:
    return PolicyLimitExceeded(
        "bytes of memory of its inspection",
        found=f"over {limits.inspection_bytes:,}",
        most=limits.inspection_bytes,
        remedy="send a smaller network",
    )


def _told(error: SimserviceError) -> dict[str, Any]:
    return {"reason": error.reason, "message": str(error), "details": error.details}


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
