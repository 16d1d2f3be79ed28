"""A14: a lane is a value. The same bits alone, among others, elsewhere, after a snapshot in another process, as a fork.

python -m simservice.proving.rows.determinism FOLDER SNAPSHOT    (prints what follows, for the other process)
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from simservice.proving.lanes import WorldLanes
from simservice.proving.recipe import Check
from simservice.proving.rows.ground import Subject, check
from simservice.types import Array, StepResult
from simservice.worlds.checkpoint import load

LANES = 16
BEFORE, AFTER = 3, 8  # steps before and after the point that is looked at


def bitwise(subject: Subject) -> list[Check]:
    """Every way to the same future, and forks with other luck."""
    envs = subject.lanes(LANES)
    actions = _actions(envs, BEFORE + AFTER)
    _begin(envs, actions)
    packed = envs.snapshot([2])
    whole = [envs.step_some(range(LANES), actions[step]) for step in range(BEFORE, BEFORE + AFTER)]
    wanted = [_digest(result, 2) for result in whole]

    def alone(place: int) -> list[str]:
        envs.restore([place], packed)
        return [_digest(envs.step_some([place], actions[step][2:3]), 0) for step in range(BEFORE, BEFORE + AFTER)]

    ways = {"alone": alone(2) == wanted, "at another place": alone(11) == wanted}
    _begin(envs, actions)
    envs.fork([2], [9])
    parent = envs.snapshot([2])
    ahead = _ahead(envs, actions, [9])
    ways["as a fork"] = ahead == wanted
    ways["the parent unchanged by its fork's steps"] = envs.snapshot([2]) == parent
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lane"
        file.write_bytes(packed)
        command = [sys.executable, "-m", "simservice.proving.rows.determinism", str(subject.folder), str(file)]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        ways["in another process"] = told.stdout.split() == wanted
    found = [
        check("A14", f"a lane differs {name}" if "unchanged" not in name else f"not {name}", float(not same), most=0)
        for name, same in ways.items()
    ]
    _begin(envs, actions)
    envs.fork([2] * 8, range(8, 16), seeds=range(900, 908))
    others = {tuple(_ahead(envs, actions, [place])) for place in range(8, 16)}
    return [*found, check("A14", "different futures of 8 forks with luck of their own", float(len(others)))]


def _ahead(envs: WorldLanes, actions: list[Array], place: list[int]) -> list[str]:
    return [_digest(envs.step_some(place, actions[step][2:3]), 0) for step in range(BEFORE, BEFORE + AFTER)]


def _actions(envs: WorldLanes, steps: int) -> list[Any]:
    envs.action_space.seed(5)
    return [np.asarray(envs.action_space.sample()) for _ in range(steps)]


def _begin(envs: WorldLanes, actions: list[Any]) -> None:
    envs.reset(seed=40)
    for step in range(BEFORE):
        envs.step(actions[step])


def _digest(result: StepResult, lane: int) -> str:
    """Of all that a step says of one lane."""
    found = hashlib.sha256()
    for array in (*result.observation.values(), result.reward, result.terminated, result.truncated):
        found.update(np.ascontiguousarray(array[lane]).tobytes())
    return found.hexdigest()[:16]


def _other_process(folder: str, file: str) -> None:
    envs = WorldLanes(load(folder).world, LANES)
    actions = _actions(envs, BEFORE + AFTER)
    envs.reset(seed=0)
    envs.restore([5], Path(file).read_bytes())
    print(*_ahead(envs, actions, [5]))


if __name__ == "__main__":
    _other_process(*sys.argv[1:])
