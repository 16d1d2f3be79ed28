"""An unfinished training on disk: tensors and JSON in one file that is whole or absent; nothing in it is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from simservice.errors import InvalidInput

_WEIGHTS, _BEST, _MOMENTS = "weights/", "best/", "optimizer/"


@dataclass
class Position:
    """Where a training stands, beside its tensors. JSON values only."""

    fingerprint: str  # of all that decides how the training goes on
    place: int = 0  # of the phase in the schedule
    update: int = 0  # updates done in that phase
    best_score: float | None = None  # None: not evaluated yet
    stale: int = 0  # evaluations since the best one
    seconds: float = 0.0  # of training so far, all runs together
    history: list[list[float]] = field(default_factory=list)  # [updates done in all, score] of every evaluation


def state_file(out: Path) -> Path:
    """Where the training of the world folder `out` is kept: beside it, gone once the world is complete."""
    return out.parent / f".{out.name}.training.safetensors"


def save_state(
    path: Path, world: nn.Module, best: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, position: Position
) -> None:
    """Replaces the file by the present state; a kill leaves the old or the new one."""
    tensors = {_WEIGHTS + name: tensor for name, tensor in world.state_dict().items()}
    tensors |= {_BEST + name: tensor for name, tensor in best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{_MOMENTS}{index}/{name}": moment for name, moment in moments.items()}
    packed = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(".saving")
    with open(staging, "wb") as file:
        file.write(save(packed, metadata={"position": json.dumps(asdict(position))}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(staging, path)


def load_state(
    path: Path, fingerprint: str, world: nn.Module
) -> tuple[Position, dict[str, Tensor], dict[int, dict[str, Tensor]]] | None:
    """Puts the weights into the world; returns position, best weights and the optimiser's moments; None: no file.

    Raises InvalidInput when the file is damaged or of a training with other data or settings.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            position = Position(**json.loads(file.metadata()["position"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput("resume", f"{path} is damaged ({error}); train again without it") from error
    if position.fingerprint != fingerprint:
        raise InvalidInput(
            "resume",
            f"{path} is of a training with other data, family, seed or settings; repeat those, or train without it",
        )
    world.load_state_dict(_under(_WEIGHTS, tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under(_MOMENTS, tensors).items():
        index, _, key = name.partition("/")
        moments.setdefault(int(index), {})[key] = tensor
    return position, _under(_BEST, tensors), moments


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
