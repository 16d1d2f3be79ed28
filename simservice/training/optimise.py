"""Brings a world through its phases by gradient: updates, the learning rate's fall, early stopping, resumption."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from simservice.errors import ConfigError
from simservice.training.gang import ALONE, Gang
from simservice.training.loader import Loader
from simservice.training.scalars import Scalars
from simservice.training.state import Position, load_state, save_state
from simservice.training.step import GraphedStep, Precision, Step
from simservice.training.windows import Windows, open_loop_errors, overall
from simservice.types import Array
from simservice.worlds.world import Phase, World

Progress = Callable[[str, float], None]
"""Told what goes on, in words, and which share of the training is done."""

_REPORT_EVERY = 50  # updates
_LAST_RATE = 0.02  # the learning rate falls along a cosine to this share of itself
_LIVE_HORIZONS = (1, 5, 10, 25)  # steps ahead whose error is told while training
_MONITORED = 128  # held-out segments


@dataclass
class Run:
    """A training under way."""

    world: World
    loader: Loader
    held_out: Loader
    phases: Sequence[Phase]
    windows: Windows
    copies: int  # of each, when they are forecast
    scale: Array
    seed: int
    patience: int
    device: str
    precision: Precision
    compiler: str
    file: Path
    progress: Progress
    scalars: Scalars
    position: Position
    best: dict[str, Tensor] = field(default_factory=dict)
    gang: Gang = ALONE
    began: float = field(default_factory=time.monotonic)
    errors: Mapping[int, float] = field(default_factory=dict)  # so many steps ahead, at the last evaluation
    figures: Mapping[str, float] = field(default_factory=dict)  # of the family, at the last evaluation

    @property
    def graphed(self) -> bool:
        """Whether its updates are CUDA graphs."""
        return self.world.graphed_loss and self.device.startswith("cuda") and not self.compiler and self.gang is ALONE

    @property
    def updates(self) -> int:
        """Done in all phases together; phases that ended early count as far as they went."""
        return sum(phase.updates for phase in self.phases[: self.position.place]) + self.position.update

    @property
    def share(self) -> float:
        """Of the whole training, done."""
        return self.updates / max(sum(phase.updates for phase in self.phases), 1)


def optimise(run: Run, resume: bool) -> None:
    """All phases, from where the training stands; leaves the best weights in the world."""
    moments: dict[int, dict[str, Tensor]] = {}
    found = load_state(run.file, run.position.fingerprint, run.world) if resume else None
    if found is not None:
        run.position, run.best, moments = found
    pace = Pace(run)
    while run.position.place < len(run.phases):
        phase = run.phases[run.position.place]
        rate: float | Tensor = phase.learning_rate
        if run.graphed:  # a graph reads it where it lies
            rate = torch.tensor(rate, device=run.device)
        optimizer = torch.optim.AdamW(
            run.world.parameters(), lr=rate, weight_decay=phase.weight_decay, fused=True, capturable=run.graphed
        )
        if moments:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
            moments = {}
        _optimise_phase(run, phase, optimizer, pace)
        if phase.open_loop:
            run.world.load_state_dict(run.best)
        position = run.position
        run.position = replace(position, place=position.place + 1, update=0, best_score=None, stale=0)


class Pace:
    """How long the rest will take, judged by what this process has done so far."""

    def __init__(self, run: Run) -> None:
        self._began, self._share = time.monotonic(), run.share

    def left(self, share: float) -> str:
        """In words, once there is something to judge by."""
        done = share - self._share
        if done <= 0:
            return ""
        seconds = (time.monotonic() - self._began) * (1 - share) / done
        return f", {seconds:.0f} s left" if seconds < 100 else f", {seconds / 60:.0f} min left"


def _optimise_phase(run: Run, phase: Phase, optimizer: torch.optim.Optimizer, pace: Pace) -> None:
    position = run.position
    loss = run.world.loss
    if run.compiler:
        loss = torch.compile(run.world.loss, backend=run.compiler)
    plain = Step(run.world, phase, optimizer, loss, run.gang, torch.device(run.device), run.precision)
    step = GraphedStep(plain) if run.graphed else plain
    while position.update < phase.updates and position.stale < run.patience:
        value, parts = _update(run, phase, optimizer, step)
        position.update += 1
        if position.update % _REPORT_EVERY == 0:
            run.progress(_words(run, phase, value) + pace.left(run.share), run.share)
            named = {f"loss/{name}": float(part.detach()) for name, part in parts.items()}
            rate = float(optimizer.param_groups[0]["lr"])
            run.scalars.add({"loss": value, **named, "learning_rate": rate}, run.updates)
        if position.update % phase.evaluate_every == 0 or position.update == phase.updates:
            _evaluate(run, phase)
            now = time.monotonic()
            position.seconds, run.began = position.seconds + now - run.began, now
            if run.gang.rank == 0:
                save_state(run.file, run.world, run.best, optimizer, position)


def _update(
    run: Run, phase: Phase, optimizer: torch.optim.Optimizer, step: Step | GraphedStep
) -> tuple[float, dict[str, Tensor]]:
    """One gradient step; the loss before it, and its parts."""
    run.world.train()
    batch = run.gang.part(run.loader.batch(phase, run.position.place, run.position.update), phase.groups)
    share = run.position.update / phase.updates
    height = min(1.0, (run.position.update + 1) / max(phase.warm_up, 1))
    height *= _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * share)) / 2
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(phase.learning_rate * height)
        else:
            group["lr"] = phase.learning_rate * height
    with _luck(run):
        whole, parts = step(batch)
    value = float(whole)
    if not math.isfinite(value):
        raise ConfigError(
            f"the training diverged at update {run.position.update} of phase {phase.name!r}; lower its learning rate "
            f"({phase.learning_rate:g}) and look for extreme values in the dataset"
        )
    return value, parts


@contextmanager
def _luck(run: Run) -> Iterator[None]:
    """Torch's own generators, seeded for this one update: noise and dropout of a loss are the same after a resume."""
    whose = f"/{run.gang.rank}" if run.gang.rank else ""
    key = f"{run.seed}/{run.position.place}/{run.position.update}{whose}".encode()
    device = torch.device(run.device)
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8], "little"))
        yield


def _evaluate(run: Run, phase: Phase) -> None:
    """Open-loop error on held-out episodes, which decides what is kept; and the family's own figures."""
    run.world.eval()
    with torch.no_grad():
        if phase.open_loop:
            _judge(run, phase.keep_last)
        with _luck(run):
            segments = replace(phase, batch_size=max(_MONITORED // phase.segment_length, 16), groups=1)
            figures = run.world.monitors(run.held_out.batch(segments, 0, 0))
    run.scalars.add({f"monitor/{name}": value for name, value in figures.items()}, run.updates)
    run.figures = figures
    run.world.train()


def _judge(run: Run, keep_last: bool) -> None:
    """Keeps the weights if their open-loop error is the lowest so far, or if the last ones are to stay."""
    errors = open_loop_errors(run.world, run.windows, run.scale, run.copies)
    score, position = run.gang.agree(overall(errors)), run.position
    run.errors = {k: float(errors[k - 1]) for k in _LIVE_HORIZONS if k <= len(errors)}
    run.scalars.add({"open_loop": score, **{f"open_loop/{k}": error for k, error in run.errors.items()}}, run.updates)
    position.history.append([float(run.updates), score])
    if keep_last or position.best_score is None or score < position.best_score:
        position.best_score, position.stale = score, 0
        run.best = {name: tensor.detach().clone() for name, tensor in run.world.state_dict().items()}
    else:
        position.stale += 1


def _words(run: Run, phase: Phase, loss: float) -> str:
    """update 500 of 2,000, loss 0.02, open-loop error 0.1 / 0.3 at 1 / 5 steps, action_shuffle_ratio 2.1."""
    words = f"{phase.name}: update {run.position.update:,} of {phase.updates:,}, loss {loss:.3g}"
    if run.errors:
        errors = " / ".join(f"{error:.3g}" for error in run.errors.values())
        words += f", error {errors} at {' / '.join(map(str, run.errors))} steps"
    return words + "".join(f", {name} {value:.3g}" for name, value in run.figures.items())
