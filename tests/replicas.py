"""Finds the replicas of a Ray service that are up, and who of them holds lanes."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Collection
from typing import Any

from processes import Process, descendants
from prometheus_client.parser import text_string_to_metric_families

from simservice.serving.front import replicas_up
from simservice.serving.service import RayService


def lanes_held(service: RayService, world: str) -> dict[int, float]:
    """Lanes of the world by process id of its replicas, as their own metrics tell; only of those that can be read."""
    return _read(service, world, "simservice_lanes_in_use")


def steps_made(service: RayService, world: str) -> float:
    """Environment steps of the replicas that run now."""
    return sum(_read(service, world, "simservice_imagined_steps_total").values())


def stored_bytes(service: RayService, world: str) -> float:
    """What the sessions of the world occupy in the store: journals, snapshots and points."""
    return sum(_read(service, world, "simservice_session_store_bytes", stat="sum").values())


def busiest(service: RayService, world: str) -> int:
    """The process of the replica that holds most lanes."""
    lanes = lanes_held(service, world)
    return max(lanes, key=lambda pid: lanes[pid])


def wait_until_up(
    service: RayService, world: str, count: int, *, killed: Collection[int] = (), timeout_s: float = 120.0
) -> float:
    """Seconds until so many replicas of the world take new streams, beside those of processes that were killed.

    HAProxy and the operating system hear of a killed process some moments later.
    """
    assert service.folder is not None
    began = time.monotonic()
    while True:
        up = replicas_up(service.folder.glob("h/*/admin.sock"))
        replicas = [replica for replica in service.replicas() if replica["world"] == world]
        ids = [replica["replica"] for replica in replicas if replica["pid"] not in killed]
        if sum(any(name.endswith(replica) for name in up) for replica in ids) >= count:
            return time.monotonic() - began
        assert time.monotonic() - began < timeout_s, f"{len(ids)} replicas of {world} run, HAProxy knows {up}"
        time.sleep(0.1)


def process_of(service: RayService, program: str) -> Process:
    """The newest process below the service whose command line has these words."""
    found = [process for process in descendants(service.pid) if program in process.command]
    return max(found, key=lambda process: int(process.started))


def _read(service: RayService, world: str, name: str, **labels: str) -> dict[int, float]:
    """One metric's value by process id; of series with these labels alone."""
    found = {}
    for replica in service.replicas():
        if replica["world"] == world and (page := _page(replica["target"])) is not None:
            samples = [s for family in text_string_to_metric_families(page) for s in family.samples]
            found[replica["pid"]] = sum(
                s.value for s in samples if s.name == name and labels.items() <= s.labels.items()
            )
    return found


def _page(target: str) -> Any:
    try:
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
            return answer.read().decode()
    except OSError:  # it has just ended
        return None
