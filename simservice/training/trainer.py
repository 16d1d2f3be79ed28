"""Trains a world of any family on recorded episodes and writes its folder. Draws nothing on a screen.

Same data, family, settings and seed give the same world, byte for byte, on one thread of one processor; whether the
training was interrupted and resumed makes no difference.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simservice import __version__
from simservice.data.episodes import Dataset
from simservice.errors import ConfigError, InvalidInput
from simservice.training.evaluate import Evaluation, evaluate
from simservice.training.loader import Loader, split
from simservice.training.state import Position, load_state, save_state, state_file
from simservice.training.windows import Windows, cut_windows, has_pictures, open_loop_score, spread
from simservice.types import Array, Provenance, WorldSpec
from simservice.worlds import checkpoint, registry
from simservice.worlds.world import Phase, World

Progress = Callable[[str, float], None]
"""Told what goes on, in words, and which share of the training is done."""

_SCORED_STEPS = 25  # open loop, for early stopping
_SCORED_WINDOWS = 64
_SCORED_PICTURE_WINDOWS = 32  # a step of pictures costs a hundred of a vector
_SCORED_COPIES = 3
_REPORT_EVERY = 50  # updates
_LAST_RATE = 0.02  # the learning rate falls along a cosine to this share of itself


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a training is run; what is trained is the family's own config, changed by `overrides`."""

    seed: int = 0
    name: str | None = None  # of the world; its folder's name by default
    overrides: Mapping[str, Any] = field(default_factory=dict)
    warm_start: Path | None = None  # a world folder of the same family to go on from
    resume: bool = False  # go on with the unfinished training of this folder, if there is one
    patience: int = 6  # evaluations without a better one before a phase ends
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ConfigError("patience must be 1 or more")
        if self.seed < 0:
            raise ConfigError("seed must be 0 or more")


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


@dataclass
class _Run:
    """A training under way."""

    world: World
    loader: Loader
    phases: Sequence[Phase]
    windows: Windows
    copies: int  # of each, when they are forecast
    scale: Array
    config: TrainConfig
    file: Path
    progress: Progress
    position: Position
    best: dict[str, Tensor]
    began: float = field(default_factory=time.monotonic)

    @property
    def updates(self) -> int:
        """Done in all phases together; phases that ended early count as far as they went."""
        return sum(phase.updates for phase in self.phases[: self.position.place]) + self.position.update


def train(
    dataset: Dataset,
    family: str,
    out: str | Path,
    *,
    config: TrainConfig | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Trains on the dataset and writes the world to the folder `out` (an older world there is replaced).

    Some tenth of the episodes is held out: for early stopping, calibration and the summary's figures. Raises
    UnknownFamily, ConfigError for settings the family does not have and for a training that diverges, InvalidInput
    for spaces or folders that do not fit.
    """
    config, out, progress = config or TrainConfig(), Path(out).absolute(), progress or _silent
    checkpoint.check_target(out)
    training, held_out = split(dataset.episodes)
    world, origin = _create(dataset, family, config, out)
    world.prepare(training)
    world.to(config.device)
    pictures = has_pictures(held_out)
    run = _Run(
        world=world,
        loader=Loader(training, config.seed, config.device),
        phases=world.phases(),
        windows=cut_windows(
            held_out, _SCORED_STEPS, _SCORED_PICTURE_WINDOWS if pictures else _SCORED_WINDOWS, world.context_frames
        ),
        copies=1 if pictures else _SCORED_COPIES,
        scale=spread(training),
        config=config,
        file=state_file(out),
        progress=progress,
        position=Position(fingerprint=_fingerprint(dataset, world, config, origin)),
        best={},
    )
    if not config.resume:
        run.file.unlink(missing_ok=True)
    _optimise(run)
    progress("evaluating on held-out episodes", 1.0)
    world.eval().requires_grad_(False)
    world.calibrate(held_out)
    evaluation = evaluate(world, held_out, training)
    world.spec = replace(world.spec, trust_horizon_steps=evaluation.trust_horizon_steps)
    version = checkpoint.save(world, out, provenance=_provenance(dataset, evaluation))
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
    settings = [dataset.hash, world.family, asdict(world.config), config.seed, config.patience, config.device, origin]
    return hashlib.sha256(json.dumps([*settings, torch.__version__], default=str).encode()).hexdigest()


def _optimise(run: _Run) -> None:
    """All phases, from where the training stands; leaves the best weights in the world."""
    moments: dict[int, dict[str, Tensor]] = {}
    found = load_state(run.file, run.position.fingerprint, run.world) if run.config.resume else None
    if found is not None:
        run.position, run.best, moments = found
    while run.position.place < len(run.phases):
        phase = run.phases[run.position.place]
        optimizer = torch.optim.AdamW(
            run.world.parameters(), lr=phase.learning_rate, weight_decay=phase.weight_decay, fused=True
        )
        if moments:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
            moments = {}
        _optimise_phase(run, phase, optimizer)
        if phase.open_loop:
            run.world.load_state_dict(run.best)
        position = run.position
        run.position = replace(position, place=position.place + 1, update=0, best_score=None, stale=0)


def _optimise_phase(run: _Run, phase: Phase, optimizer: torch.optim.Optimizer) -> None:
    position = run.position
    while position.update < phase.updates and position.stale < run.config.patience:
        loss = _update(run, phase, optimizer)
        position.update += 1
        if position.update % _REPORT_EVERY == 0:
            run.progress(_words(phase, position, loss), run.updates / sum(phase.updates for phase in run.phases))
        if position.update % phase.evaluate_every == 0 or position.update == phase.updates:
            if phase.open_loop:
                _judge(run)
            _save(run, optimizer)


def _update(run: _Run, phase: Phase, optimizer: torch.optim.Optimizer) -> float:
    """One gradient step; the loss before it."""
    run.world.train()
    batch = run.loader.batch(phase, run.position.place, run.position.update)
    with _luck(run):
        loss, _ = run.world.loss(batch, {}, phase.name)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ConfigError(
            f"the training diverged at update {run.position.update} of phase {phase.name!r}; lower its learning rate "
            f"({phase.learning_rate:g}) and look for extreme values in the dataset"
        )
    share = run.position.update / phase.updates
    for group in optimizer.param_groups:
        group["lr"] = phase.learning_rate * (_LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * share)) / 2)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    if phase.max_gradient_norm is not None:
        torch.nn.utils.clip_grad_norm_(run.world.parameters(), phase.max_gradient_norm)
    optimizer.step()
    return value


@contextmanager
def _luck(run: _Run) -> Iterator[None]:
    """Torch's own generators, seeded for this one update: noise and dropout of a loss are the same after a resume."""
    key = f"{run.config.seed}/{run.position.place}/{run.position.update}".encode()
    device = torch.device(run.config.device)
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8], "little"))
        yield


def _judge(run: _Run) -> None:
    """Open-loop error on the held-out episodes; keeps the weights if it is the lowest so far."""
    with _evaluating(run.world):
        score = open_loop_score(run.world, run.windows, run.scale, run.copies)
    position = run.position
    position.history.append([float(run.updates), score])
    if position.best_score is None or score < position.best_score:
        position.best_score, position.stale = score, 0
        run.best = {name: tensor.detach().clone() for name, tensor in run.world.state_dict().items()}
    else:
        position.stale += 1


@contextmanager
def _evaluating(world: World) -> Iterator[None]:
    world.eval()
    with torch.no_grad():
        yield
    world.train()


def _save(run: _Run, optimizer: torch.optim.Optimizer) -> None:
    now = time.monotonic()
    run.position.seconds, run.began = run.position.seconds + now - run.began, now
    save_state(run.file, run.world, run.best, optimizer, run.position)


def _words(phase: Phase, position: Position, loss: float) -> str:
    best = "" if position.best_score is None else f", best open-loop error {position.best_score:.3g}"
    return f"{phase.name}: update {position.update:,} of {phase.updates:,}, loss {loss:.3g}{best}"


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
