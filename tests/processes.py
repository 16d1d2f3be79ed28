"""Finds processes by a word in their environment: a child inherits it, whoever its parent is later."""

from __future__ import annotations

import os
from pathlib import Path


def marked(mark: str) -> dict[int, str]:
    """Process ids and command lines of the running processes that have the mark, this one excepted."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended, or is another user's
            continue
    return found


def listening_addresses(pid: int) -> set[str]:
    """Local IPv4 addresses, as dotted text, on which a process listens for TCP."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            raw = bytes.fromhex(fields[1].partition(":")[0])
            found.add(".".join(str(byte) for byte in reversed(raw)))
    return found
