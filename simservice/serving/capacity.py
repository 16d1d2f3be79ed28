"""How many lanes a replica can hold: what was asked for, or fewer where the device has no memory for them."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from simservice.errors import ConfigError
from simservice.worlds.world import World

log = logging.getLogger(__name__)

PART = 0.5
"""Of the free memory that lanes may take; the rest is for the other replicas, messages and what grows later."""

COPIES = 6
"""A lane's row is in the arena once, and in a tick as the gathered batch, the step's results and their leaves."""


def lanes_that_fit(world: World, device: str, asked: int) -> int:
    """At most `asked`; ConfigError when the device has no room for one lane."""
    rows = world.allocate(1, torch.device("cpu"))
    lane_bytes = sum(row.numel() * row.element_size() for row in rows.values())
    room = free_bytes(device)
    fitting = int(room * PART) // max(1, lane_bytes * COPIES)
    if fitting < 1:
        raise ConfigError(f"{device} has {room} bytes free: too few for a lane of {world.spec.full_name}", key="device")
    if fitting < asked:
        log.warning("%s has memory for %d lanes of %s, not for %d", device, fitting, world.spec.full_name, asked)
    return min(asked, fitting)


def free_bytes(device: str) -> int:
    """Memory that nobody uses: of the device, or of this machine or container for the CPU."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    meminfo = dict(line.split(":", 1) for line in _text(Path("/proc/meminfo")).splitlines())
    machine = int(meminfo.get("MemAvailable", "0 kB").split()[0]) * 1024
    container = _container_bytes()
    known = [size for size in (machine, container) if size]
    return min(known) if known else 2**33  # where nobody tells, 8 GiB


def _container_bytes() -> int:
    """What a memory limit of this container leaves; 0 without one."""
    folder = Path("/sys/fs/cgroup")
    limit, used = _text(folder / "memory.max").strip(), _text(folder / "memory.current").strip()
    return max(1, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else 0


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
