"""Trains a world of any family on recorded episodes and writes its folder. Draws nothing on a screen.

Same data, family, settings and seed give the same world, byte for byte, on one thread of one processor; whether the
training was interrupted and resumed makes no difference.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from simservice import __version__
from simservice.data.episodes import Dataset
from simservice.errors import ConfigError, InvalidInput
from simservice.training.evaluate import Evaluation, evaluate
from simservice.training.gang import ALONE, Gang
from simservice.training.loader import Loader, split
from simservice.training.optimise import Progress, Run, optimise
from simservice.training.scalars import TensorBoard, Unwritten
from simservice.training.state import Position, state_file
from simservice.training.step import Precision
from simservice.training.strip import STRIP, write_strip
from simservice.training.windows import cut_windows, has_pictures, spread
from simservice.types import Episode, Provenance, WorldSpec
from simservice.worlds import checkpoint, registry
from simservice.worlds.world import Phase, World

_SCORED_STEPS = 25  # open loop, for early stopping
_SCORED_WINDOWS = 64
_SCORED_PICTURE_WINDOWS = 32  # a step of pictures costs a hundred of a vector
_SCORED_COPIES = 3


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a training is run; what is trained is the family's own config, changed by `overrides`."""

    seed: int = 0
    name: str | None = None  # of the world; its folder's name by default
    overrides: Mapping[str, Any] = field(default_factory=dict)
    warm_start: Path | None = None  # a world folder of the same family to go on from
    resume: bool = False  # go on with the unfinished training of this folder, if there is one
    patience: int = 6  # evaluations without a better one before a phase ends
    most_updates: int | None = None  # of each phase; None: as many as the family says
    device: str = "cpu"
    precision: Precision = "float32"  # bfloat16: losses are computed in it where torch may; for large worlds on CUDA
    compiler: str = ""  # torch.compile's backend for losses, e.g. "inductor"; none: as they are written
    tensorboard: Path | None = None  # folder of figures over the updates

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ConfigError("patience must be 1 or more")
        if self.seed < 0:
            raise ConfigError("seed must be 0 or more")
        if self.most_updates is not None and self.most_updates < 1:
            raise ConfigError("most_updates must be 1 or more")

    def shortened(self, phases: Sequence[Phase]) -> list[Phase]:
        """The phases with no more updates than are allowed."""
        most = self.most_updates
        if most is None:
            return list(phases)
        return [
            replace(phase, updates=min(phase.updates, most), evaluate_every=min(phase.evaluate_every, most))
            for phase in phases
        ]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a training gave, for one screen."""

    name: str
    version: str
    family: str
    path: Path
    real_steps: int  # every real step the dataset cost
    training_steps: int
    held_out_steps: int
    updates: int
    seconds: float
    history: Sequence[tuple[int, float]]  # updates done, open-loop score on held-out episodes
    evaluation: Evaluation  # on the held-out episodes


def train(
    dataset: Dataset,
    family: str,
    out: str | Path,
    *,
    config: TrainConfig | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Trains on the dataset and writes the world to the folder `out` (an older world there is replaced).

    Some tenth of the episodes is held out: for early stopping, calibration and the summary's figures. A world of
    pictures gets a strip of a dream beside its files. Raises UnknownFamily, ConfigError for settings the family does
    not have and for a training that diverges, InvalidInput for spaces or folders that do not fit.
    """
    summary = train_together(dataset, family, out, ALONE, config=config, progress=progress)
    assert summary is not None
    return summary


def train_together(
    dataset: Dataset,
    family: str,
    out: str | Path,
    gang: Gang,
    *,
    config: TrainConfig | None = None,
    progress: Progress | None = None,
) -> Summary | None:
    """The same, as one member of a gang, all of whom call it alike; the first one writes and gets the summary.

    Losses that draw random numbers draw other ones in each member.
    """
    config, out, progress = config or TrainConfig(), Path(out).absolute(), progress or _silent
    checkpoint.check_target(out)
    training, held_out = split(dataset.episodes)
    world, origin = _create(dataset, family, config, out)
    world.prepare(training)
    world.to(config.device)
    pictures = has_pictures(held_out)
    run = Run(
        world=world,
        loader=Loader(training, config.seed, config.device),
        held_out=Loader(held_out, config.seed, config.device),
        phases=config.shortened(world.phases()),
        windows=cut_windows(
            held_out, _SCORED_STEPS, _SCORED_PICTURE_WINDOWS if pictures else _SCORED_WINDOWS, world.context_frames
        ),
        copies=1 if pictures else _SCORED_COPIES,
        scale=spread(training),
        seed=config.seed,
        patience=config.patience,
        device=config.device,
        precision=config.precision,
        compiler=config.compiler,
        file=state_file(out),
        progress=progress,
        scalars=TensorBoard(config.tensorboard) if config.tensorboard is not None and gang.rank == 0 else Unwritten(),
        position=Position(fingerprint=_fingerprint(dataset, world, config, origin)),
        gang=gang,
    )
    if not config.resume and gang.rank == 0:
        run.file.unlink(missing_ok=True)
    optimise(run, config.resume)
    return _finish(run, dataset, training, held_out, out) if gang.rank == 0 else None


def _finish(run: Run, dataset: Dataset, training: Sequence[Episode], held_out: Sequence[Episode], out: Path) -> Summary:
    """Calibrates, evaluates and writes the world."""
    run.progress("evaluating on held-out episodes", 1.0)
    world = run.world.eval().requires_grad_(False)
    world.calibrate(held_out)
    evaluation = evaluate(world, held_out, training)
    world.spec = replace(world.spec, trust_horizon_steps=evaluation.trust_horizon_steps)
    version = checkpoint.save(world, out, provenance=_provenance(dataset, evaluation))
    if has_pictures(held_out) and "context" in world.spec.capabilities:
        write_strip(world, held_out, out / STRIP)
    run.scalars.close()
    run.file.unlink(missing_ok=True)
    return Summary(
        name=world.spec.name,
        version=version,
        family=world.family,
        path=out,
        real_steps=dataset.real_steps,
        training_steps=run.loader.steps,
        held_out_steps=evaluation.steps,
        updates=run.updates,
        seconds=run.position.seconds + time.monotonic() - run.began,
        history=[(int(update), score) for update, score in run.position.history],
        evaluation=evaluation,
    )


def _silent(words: str, share: float) -> None:
    """Progress nobody watches."""


def _create(dataset: Dataset, family: str, config: TrainConfig, out: Path) -> tuple[World, str]:
    """An untrained world, or the one to go on from, and a word on which it is."""
    spec = WorldSpec(
        name=config.name or out.name,
        version="",
        family=family,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        max_episode_steps=dataset.max_episode_steps,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.warm_start is None:
            return registry.create(family, spec, {**_reality(dataset, family), **config.overrides}), "scratch"
        older = checkpoint.load(config.warm_start).world
        _check_warm_start(older, spec, config.warm_start)
        world = registry.create(family, spec, {**asdict(older.config), **config.overrides})
    try:
        world.load_state_dict(older.state_dict())
    except RuntimeError as error:  # torch names the tensors that do not fit
        raise InvalidInput("warm_start", f"{config.warm_start} has networks of another shape: {error}") from error
    return world, older.spec.version


def _reality(dataset: Dataset, family: str) -> dict[str, Any]:
    """Settings that say which environment the data is from, for a family that asks: the oracle, which is that one."""
    known = {entry.name for entry in fields(registry.family(family).Config)}
    origin = {"env_id": dataset.env_id, "env_kwargs": dataset.env_kwargs, "attributes": dataset.env_attributes}
    return {name: value for name, value in origin.items() if name in known and value}


def _check_warm_start(older: World, spec: WorldSpec, folder: Path) -> None:
    for name in ("family", "observation_space", "action_space"):
        found, wanted = getattr(older.spec, name), getattr(spec, name)
        if found != wanted:
            raise InvalidInput("warm_start", f"the world in {folder} has {name} {found}, this training {wanted}")


def _fingerprint(dataset: Dataset, world: World, config: TrainConfig, origin: str) -> str:
    """Of all that decides the result."""
    how = [config.seed, config.patience, config.most_updates, config.device, config.precision, config.compiler]
    settings = [dataset.hash, world.family, asdict(world.config), *how, origin]
    return hashlib.sha256(json.dumps([*settings, torch.__version__], default=str).encode()).hexdigest()


def _provenance(dataset: Dataset, evaluation: Evaluation) -> Provenance:
    return Provenance(
        env_id=dataset.env_id,
        env_kwargs=dataset.env_kwargs,
        env_attributes=dataset.env_attributes,
        dataset_id=dataset.dataset_id,
        dataset_hash=dataset.hash,
        real_steps=dataset.real_steps,
        code_version=__version__,
        fidelity=evaluation.figures(),
    )
