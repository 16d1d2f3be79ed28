"""Ends what a killed driver left of its cluster. Run as a script by a bare interpreter: the standard library only.

Ray's own helpers follow a killed driver late or not at all, and nobody removes the cluster's folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

PATIENCE_S = 3.0  # for those that end by themselves


def processes_of(folder: Path, session: int) -> list[int]:
    """Processes of the terminal session that run the cluster in this folder: they name it or have files open there.

    Ray's processes overwrite their command line with a title and their environment with it. The session keeps somebody
    who only reads the cluster's logs out of this.
    """
    found = []
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if os.getsid(int(entry.name)) != session:
                continue
            words = [os.fsdecode((entry / "cmdline").read_bytes())]
            words += [os.readlink(descriptor) for descriptor in (entry / "fd").iterdir()]
        except OSError:  # it, or a file of it, has just gone
            continue
        if any(str(folder) in word for word in words):
            found.append(int(entry.name))
    return found


def end_leftovers(folder: Path, session: int, patience_s: float) -> None:
    """Returns when no process of the cluster is left; one that does not end in time is killed."""
    deadline = time.monotonic() + patience_s
    while left := processes_of(folder, session):
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def watch() -> None:
    """Reads the folder from stdin and waits for its end; a driver that ends in order has then cleared up itself."""
    session = os.getsid(0)
    os.setsid()  # a signal to the driver's terminal is not for this process
    folder = Path(sys.stdin.readline().strip())
    sys.stdin.read()
    if folder.exists():
        end_leftovers(folder, session, PATIENCE_S)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    watch()
