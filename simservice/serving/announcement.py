"""How a replica tells where its metrics are: one small file in the form that Prometheus' file_sd reads.

Each replica of a world has a place on its machine, from 0 on, which a successor takes over. Series are labelled by it
and not by the replica's id or port, so that restarts make no new ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simservice.telemetry import Target

HIDDEN = "__simservice_"  # Prometheus drops labels that begin with two underscores


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """One replica: the world it serves, its process, and the address of its metrics."""

    world: str
    version: str
    replica: str  # Ray Serve's id of it
    target: str  # host:port
    pid: int
    place: int = -1  # given by write()

    def write(self, folder: Path) -> Path:
        """Takes the first place that no living replica of the world has; no reader sees half of the file."""
        announced(folder)  # clears places of the dead
        place = 0
        while True:
            path = folder / f"{self.world}-{place}.json"
            draft = folder / f"{self.replica}.tmp"
            draft.write_text(json.dumps([{"targets": [self.target], "labels": self._labels(place)}]), encoding="utf-8")
            try:
                os.link(draft, path)
            except FileExistsError:
                place += 1
            else:
                return path
            finally:
                draft.unlink()

    def _labels(self, place: int) -> dict[str, str]:
        host = self.target.rpartition(":")[0]
        hidden = {"version": self.version, "replica": self.replica, "pid": str(self.pid)}
        return {
            "world": self.world,
            "replica": str(place),
            "instance": f"{host}/{self.world}/{place}",
            **{HIDDEN + name: value for name, value in hidden.items()},
        }

    @property
    def metrics(self) -> Target:
        """The replica's metrics page."""
        return Target(url=f"http://{self.target}/metrics", world=self.world, replica=str(self.place))

    @property
    def alive(self) -> bool:
        """Whether its process still runs on this machine."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


def announced(folder: Path) -> list[Announcement]:
    """The replicas of this machine that have a file in the folder and are alive; files of dead ones are removed."""
    found = []
    for path, announcement in _read(folder):
        if announcement.alive:
            found.append(announcement)
        else:
            _remove(path, announcement)
    return found


def _remove(path: Path, dead: Announcement) -> None:
    """Removes a dead replica's file, and not that of a successor who has taken its place meanwhile."""
    aside = path.with_suffix(f".{os.getpid()}")
    try:
        path.rename(aside)
    except FileNotFoundError:  # somebody else did
        return
    if json.loads(aside.read_text(encoding="utf-8"))[0]["labels"][HIDDEN + "pid"] != str(dead.pid):
        os.link(aside, path)
    aside.unlink()


def _read(folder: Path) -> Iterator[tuple[Path, Announcement]]:
    for path in sorted(folder.glob("*.json")):
        try:
            [group] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:  # its replica has just ended
            continue
        labels = group["labels"]
        yield (
            path,
            Announcement(
                world=labels["world"],
                version=labels[HIDDEN + "version"],
                replica=labels[HIDDEN + "replica"],
                target=group["targets"][0],
                pid=int(labels[HIDDEN + "pid"]),
                place=int(labels["replica"]),
            ),
        )
