"""A watch of the toy world that knows what is normal, made once and copied by whoever changes it."""

from __future__ import annotations

import shutil
from pathlib import Path

from toy_registered import MODULE_ID

from simservice.monitor.normal import NormalConfig
from simservice.monitor.pace import PaceConfig
from simservice.monitor.rig import RigConfig
from simservice.monitor.world_watch import WatchConfig, WorldWatch

NORMAL = NormalConfig(horizon=20, reference_probes=100, calibration_probes=120)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def config(**changes) -> WatchConfig:
    return WatchConfig(
        **{
            "pace": PaceConfig(every_s=60.0),
            "normal": NORMAL,
            "fidelity_every_s": None,
            "golden_every_s": None,
            "retry_s": 0.5,
            **changes,
        }
    )


def watch_of(address: str, folder: Path, world: str = "toy", clock=None, rig: RigConfig | None = None, **changes):
    """A watch in this folder, with whatever is kept there."""
    rig = rig or RigConfig(env_id=MODULE_ID)
    return WorldWatch(address, world, rig, config(**changes), folder, **({} if clock is None else {"now": clock}))


def learned(address: str, folder: Path) -> Path:
    """A folder in which a watch of the toy has learned what is normal."""
    watch = watch_of(address, folder)
    watch._prepare()
    assert watch.evidence is not None and watch.evidence.served is not None
    watch.close()
    return folder


def copy_of(folder: Path, to: Path) -> Path:
    """The same in another place."""
    shutil.copytree(folder, to)
    return to


def probes(watch: WorldWatch, count: int) -> None:
    """Plays so many, at once."""
    for _ in range(count):
        watch._probe()
