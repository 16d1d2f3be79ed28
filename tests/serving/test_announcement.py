"""Replicas tell where their metrics are, and a successor takes the place of who is gone."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

from simservice.serving.announcement import Announcement, announced

ENDED = subprocess.Popen(["true"])
ENDED.wait()


def replica(name: str, pid: int = 0, world: str = "toy") -> Announcement:
    return Announcement(
        world=world, version="v1", replica=name, target=f"127.0.0.1:{1000 + len(name)}", pid=pid or os.getpid()
    )


def places(folder):
    return sorted((one.world, one.place, one.replica) for one in announced(folder))


def test_replicas_of_a_world_count_from_zero(tmp_path):
    for one in (replica("a"), replica("bb"), replica("c", world="other")):
        one.write(tmp_path)
    assert places(tmp_path) == [("other", 0, "c"), ("toy", 0, "a"), ("toy", 1, "bb")]


def test_a_successor_takes_the_place_of_the_dead_and_of_the_ended(tmp_path):
    replica("dead", ENDED.pid).write(tmp_path)
    ended = replica("ended").write(tmp_path)
    ended.unlink()
    for number in range(10):  # ten restarts
        replica(f"next{number}", ENDED.pid).write(tmp_path)
    replica("last").write(tmp_path)
    assert places(tmp_path) == [("toy", 0, "last")]


def test_replicas_that_start_together_get_places_of_their_own(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: replica(f"r{number}").write(tmp_path), range(16)))
    assert [place for _, place, _ in places(tmp_path)] == list(range(16))


def test_what_prometheus_keeps_of_a_target_is_the_same_after_a_restart(tmp_path):
    def labels(name, pid):
        path = replica(name, pid).write(tmp_path)
        [group] = json.loads(path.read_text())
        return {key: value for key, value in group["labels"].items() if not key.startswith("__")}

    first = labels("a", ENDED.pid)
    assert labels("another", os.getpid()) == first
    assert first == {"world": "toy", "replica": "0", "instance": "127.0.0.1/toy/0"}
