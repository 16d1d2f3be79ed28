"""Runs a part of a proof in a process in which the real environment cannot be imported.

    python -m simservice.proving.sealed server JOB.json
    python -m simservice.proving.sealed agent JOB.json

The job names the real environment; the process first tries to make it, and works only if that fails.
"""

from __future__ import annotations

import importlib
import importlib.abc
import json
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import gymnasium as gym

from simservice.types import qualified

REALITY = (
    "gymnasium.envs.classic_control",
    "gymnasium.envs.box2d",
    "gymnasium.envs.mujoco",
    "gymnasium.envs.phys2d",
    "gymnasium.envs.tabular",
    "gymnasium.envs.toy_text",
    "simservice.grounds",
)
"""Modules of real environments and proving grounds."""

HOUSE = tuple(
    f"simservice.{room}"
    for room in ("worlds", "engine", "data", "training", "fidelity", "sessions", "serving", "monitor", "demo", "cli")
)
"""What an agent that has the network client alone can do without."""

_PARTS = {"server": "simservice.proving.server", "agent": "simservice.proving.agent_process"}


_SEALED = "is sealed off from this process"


class Sealed(ModuleNotFoundError):
    """A module behind the wall."""


class Wall(importlib.abc.MetaPathFinder):
    """Refuses modules, and all that is in them."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = tuple(modules)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if any(fullname == name or fullname.startswith(f"{name}.") for name in self.modules):
            raise Sealed(f"{fullname} {_SEALED}", name=fullname)
        return None


def build_wall(modules: Sequence[str]) -> None:
    """Makes modules unimportable in this process; one that is loaded already is an error of ours."""
    there = [name for name in sys.modules if any(name == one or name.startswith(f"{one}.") for one in modules)]
    assert not there, f"{there} came before the wall"
    sys.meta_path.insert(0, Wall(modules))


def main(part: str, job_file: str) -> None:
    """Builds the wall, tries it, works."""
    job = json.loads(Path(job_file).read_text())
    if job["sealed"]:
        build_wall((*REALITY, *HOUSE) if job.get("client_only") else REALITY)
        _try_the_wall(job["env_id"])
    importlib.import_module(_PARTS[part]).main(job)


def _try_the_wall(env_id: str) -> None:
    try:
        gym.make(qualified(env_id))
    except ModuleNotFoundError as error:
        if _SEALED in str(error):  # Gymnasium may have put it into words of its own
            return
    except TypeError:
        pass  # only its arguments are missing: it could be made
    raise SystemExit(f"{env_id} is not behind the wall: the process is not sealed")


if __name__ == "__main__":
    main(*sys.argv[1:])
