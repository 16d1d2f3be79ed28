"""A9: starts that a user gives. A real frame that was never recorded is taken as it is; garbage is seen as garbage."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simservice.fidelity.pixels import is_picture
from simservice.proving.recipe import Check
from simservice.proving.rows.ground import RIGHT, Subject, auroc, check, remark
from simservice.types import Array, Context, Leaves
from simservice.worlds.rollout import imagine

STEPS = 600
STARTS = 64
LEAST_PSNR = 25.0  # of pictures, dB
TOLD = 0.9
BEYOND = 10.0  # spreads: where no state is


def given_starts(subject: Subject) -> list[Check]:
    """What is seen at a given start, and whether one step's uncertainty tells real starts from others."""
    world = subject.world
    if "context" not in world.spec.capabilities:
        return [remark("A9", "the family takes no starts from users")]
    real = _frames(subject)
    seen, doubt = _begun(subject, real)
    found = [_taken(path, seen[path], real[path]) for path in real]
    if "uncertainty" not in world.spec.capabilities:
        return found
    for words, garbage in _garbage(real):
        label = np.repeat([False, True], STARTS)
        score = auroc(np.concatenate([doubt, _begun(subject, garbage)[1]]), label)
        found.append(check("A9", f"starts of {words} told from real ones by uncertainty, AUROC", score, least=TOLD))
    return found


def _frames(subject: Subject) -> Leaves:
    """(STARTS, ...) real frames from the middle of fresh episodes."""
    episodes = subject.fresh(STEPS)
    chance = np.random.default_rng(3)
    chosen = [episodes[place] for place in chance.integers(len(episodes), size=STARTS)]
    moments = [int(chance.integers(len(episode))) for episode in chosen]
    pairs = list(zip(chosen, moments, strict=True))
    return {path: np.stack([episode.observation[path][at] for episode, at in pairs]) for path in chosen[0].observation}


def _begun(subject: Subject, frames: Leaves) -> tuple[Leaves, Array]:
    """First observations (STARTS, ...) and the uncertainty of one step from there."""
    space = subject.world.spec.action_space
    space.seed(0)
    actions: Leaves = {"action": np.stack([np.asarray(space.sample())[None] for _ in range(STARTS)])}
    context = Context({path: rows[:, None] for path, rows in frames.items()}, {})
    rollout = imagine(subject.world, actions, context=context)
    return {path: rows[:, 0] for path, rows in rollout.observation.items()}, rollout.uncertainty[:, 0]


def _taken(path: str, seen: Array, real: Array) -> Check:
    missed = float(((seen.astype(np.float64) - real) ** 2).mean())
    if is_picture(real, 1):
        psnr = 10 * np.log10(255**2 / max(missed, 1e-6))
        return check("A9", f"{path} at a given start, PSNR (dB)", float(psnr), least=LEAST_PSNR)
    apart = np.sqrt(missed) / max(float(real.std()), 1e-9)
    return check("A9", f"{path} at a given start, error over spread", float(apart), most=RIGHT)


def _garbage(real: Leaves) -> Iterator[tuple[str, Leaves]]:
    """Noise; and of pictures flat grey and negatives."""
    chance = np.random.default_rng(4)
    pictures = [path for path, rows in real.items() if is_picture(rows, 1)]

    def noise(rows: Array) -> Array:
        if is_picture(rows, 1):
            return np.asarray(chance.integers(0, 256, rows.shape, dtype=np.uint8))
        return np.asarray(rows + BEYOND * rows.std(axis=0) * chance.normal(size=rows.shape), rows.dtype)

    yield "noise", {path: noise(rows) for path, rows in real.items()}
    if pictures:
        yield "grey", {**real, **{path: np.full_like(real[path], 128) for path in pictures}}
        yield "negatives", {**real, **{path: 255 - real[path] for path in pictures}}
