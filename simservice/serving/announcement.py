"""How a replica tells where its metrics are: one small file in the form that Prometheus' file_sd reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simservice.telemetry import Target

PID_LABEL = "__simservice_pid"  # Prometheus drops labels that begin so


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """One replica: the world it serves, its process, and the address of its metrics."""

    world: str
    version: str
    replica: str
    target: str  # host:port
    pid: int

    def write(self, folder: Path) -> Path:
        """Writes the file in one step, so that no reader sees half of it."""
        labels = {"world": self.world, "version": self.version, "replica": self.replica, PID_LABEL: str(self.pid)}
        path = folder / f"{self.replica}.json"
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps([{"targets": [self.target], "labels": labels}]), encoding="utf-8")
        return draft.rename(path)

    @property
    def metrics(self) -> Target:
        """The replica's metrics page."""
        return Target(url=f"http://{self.target}/metrics", world=self.world, replica=self.replica)

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
            path.unlink(missing_ok=True)
    return found


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
                version=labels["version"],
                replica=labels["replica"],
                target=group["targets"][0],
                pid=int(labels[PID_LABEL]),
            ),
        )
