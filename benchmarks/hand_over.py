"""Sessions step without pause while Ray Serve's replicas are replaced: how many steps fail, and how long one stalls.

Prints one line a change: a deployment with fewer replicas, with more, of a new version of the world. All sessions play
the same seeds and actions, so at the end all must have seen the same.

    python benchmarks/hand_over.py [--sessions 12] [--lanes 8]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
os.environ["SIMSERVICE_EXTRA_FAMILIES"] = "toy:Toy"
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])

from toy import Toy, ToyConfig, toy_spec  # noqa: E402

from simservice.client.session import RemoteSession  # noqa: E402
from simservice.serving.service import RayService  # noqa: E402
from simservice.types import Provenance  # noqa: E402
from simservice.worlds import checkpoint  # noqa: E402

SETTLE_S = 8.0  # after a deployment returns, the old replicas are still leaving
PAUSE_S = 0.005  # what an agent thinks between two steps


class Player(threading.Thread):
    """One session's loop."""

    def __init__(self, address: str, lanes: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.session = RemoteSession(address, "mover", num_envs=lanes, patience_s=120.0)
        self.seen: list[bytes] = []
        self.slowest_s = 0.0
        self.failure: Exception | None = None
        self._over = stop

    def run(self) -> None:
        """Steps until told to stop."""
        lanes = np.arange(self.session.num_envs)
        self.session.reset(seeds=lanes)
        try:
            while not self._over.is_set():
                began = time.perf_counter()
                result = self.session.step({"action": (lanes + len(self.seen)) % 3})
                self.slowest_s = max(self.slowest_s, time.perf_counter() - began)
                self.seen.append(result.observation["observation"].tobytes())
                time.sleep(PAUSE_S)
        except Exception as error:
            self.failure = error


def observe(name: str, players: list[Player], change: Callable[[], object]) -> None:
    """Makes a change under load and prints what the players met."""
    moves, steps = sum(player.session.moves for player in players), sum(len(player.seen) for player in players)
    for player in players:
        player.slowest_s = 0.0
    change()
    time.sleep(SETTLE_S)
    stalls = [player.slowest_s for player in players]
    failures = [str(player.failure) for player in players if player.failure is not None]
    print(
        f"{name:<12} {sum(len(player.seen) for player in players) - steps:>7,} steps, "
        f"{sum(player.session.moves for player in players) - moves:>3} requests to move, "
        f"longest step of a session: median {statistics.median(stalls):.2f} s, most {max(stalls):.2f} s, "
        f"failed: {len(failures)} {failures[:1] or ''}",
        flush=True,
    )


def version(folder: Path, growth: float) -> Path:
    """One version of the world."""
    checkpoint.save(Toy(toy_spec(name="mover"), ToyConfig(noise=0.05, growth=growth)), folder, provenance=Provenance())
    return folder


def main() -> int:
    """1 when a step failed or two sessions saw different things."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=12)
    parser.add_argument("--lanes", type=int, default=8)
    asked = parser.parse_args()
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as place:
        old, new = version(Path(place) / "old", 0.95), version(Path(place) / "new", 0.9)
        with RayService([old], replicas=(2, 2)) as service:
            players = [Player(service.address, asked.lanes, stop) for _ in range(asked.sessions)]
            for player in players:
                player.start()
            observe("calm", players, lambda: None)
            observe("2 to 1", players, lambda: service.deploy(old, replicas=(1, 1)))
            observe("1 to 2", players, lambda: service.deploy(old, replicas=(2, 2)))
            observe("new version", players, lambda: service.deploy(new, replicas=(2, 2)))
            stop.set()
            for player in players:
                player.join()
                player.session.close()
    common = min(len(player.seen) for player in players)
    alike = all(player.seen[:common] == players[0].seen[:common] for player in players)
    print(f"all sessions saw the same in {common:,} steps each: {'yes' if alike else 'NO'}")
    return 0 if alike and all(player.failure is None for player in players) else 1


if __name__ == "__main__":
    sys.exit(main())
