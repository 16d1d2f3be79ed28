"""Finds the processes of a service, and where they listen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """One run of a process: the kernel gives its number to another one later, but not its start."""

    pid: int
    started: str

    @property
    def command(self) -> str:
        """Its command line, or the title it gave itself; nothing once it has ended."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            return ""

    @property
    def runs(self) -> bool:
        """Whether it has not ended; one that ended and was not waited for has."""
        found = _stat(self.pid)
        return found is not None and found[19] == self.started and found[0] != "Z"


def descendants(pid: int) -> list[Process]:
    """The process and everything it started, however far down, whose parents still run."""
    stats = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found, pending = [], [pid]
    while pending:
        parent = pending.pop()
        if (stat := stats.get(parent)) is not None:
            found.append(Process(parent, stat[19]))
        pending += [child for child, stat in stats.items() if stat is not None and int(stat[1]) == parent]
    return found


def _stat(pid: int) -> list[str] | None:
    """State, parent and so on, as proc(5) lists them after the name."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def listening_addresses(pid: int) -> set[str]:
    """IPv4 addresses on which a process listens for TCP."""
    inodes = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    except OSError:  # it has ended meanwhile
        return set()
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            raw = bytes.fromhex(fields[1].partition(":")[0])
            found.add(".".join(str(byte) for byte in reversed(raw)))
    return found
