"""A7: a thousand steps of random play without a number that is none, whose frames look as real ones do and can be put
into codes as well; and whether uncertainty tells which dreams have gone wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from simservice.data.environments import close, make_environment, max_episode_steps
from simservice.fidelity.pixels import is_picture
from simservice.grounds import grid_dot
from simservice.proving.recipe import Check
from simservice.proving.rows.ground import RIGHT, Subject, auroc, check, remark
from simservice.training.windows import cut_windows, forecast, spread
from simservice.types import Array, Leaves, leaves_of, to_leaves
from simservice.worlds.codec import torch_dtype
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import World

STEPS = 1_000
LANES = 16
REAL_STEPS = 4_000
BAND = (0.01, 0.99)
WITHIN = 0.95
LEAD = 25  # of the dreams whose errors are to be told
ONE_DOT = 0.98  # of GridDot's frames
SLACK = 1e-6  # of a statistic's size: rounding is no drift
RESIDUAL = "residual"  # what worlds of codes call, in a step's aux, the part of the last real frame that no code shows
LOOKED_EVERY = 10  # steps
ROUNDED = 2e-3  # a residual below this is that of pixels that are whole numbers
GREY = 1.0  # of 255 levels: in some environments every frame has one and the same light, and the band no width
LEAST_WRONG = 5  # dreams; of fewer no detector can be judged


def stability(subject: Subject) -> list[Check]:
    """Frame statistics of 16 lanes x 1,000 steps against the real 1 to 99 % band; every statistic for itself."""
    limit = {"max_episode_steps": STEPS} if _limited(subject) else {}
    episodes = subject.fresh(REAL_STEPS, "random", **limit)
    seen = {
        path: np.concatenate([episode.observation[path] for episode in episodes]) for path in episodes[0].observation
    }
    real = _statistics(seen)
    low, high = np.quantile(real, BAND, axis=0)
    edge = SLACK * np.maximum(np.abs(low), np.abs(high)) + _grey(seen)
    envs = subject.lanes(LANES, limitless=True)
    envs.action_space.seed(0)
    envs.reset(seed=0)
    within, clean, dreamt, finite = list[Array](), list[Array](), list[Leaves](), True
    for step in range(STEPS):
        observation, reward, _, _, infos = envs.step(envs.action_space.sample())
        leaves = to_leaves(envs.single_observation_space, observation, "observation")
        numbers = _statistics(leaves)
        finite &= bool(np.isfinite(numbers).all() and np.isfinite(reward).all()) and "world_error" not in infos
        if subject.env_id == "simservice/GridDot-v0":
            clean.append(grid_dot.read(observation)["clean"])
        within.append((numbers >= low - edge) & (numbers <= high + edge))
        if step % LOOKED_EVERY == 0:
            dreamt.append({path: rows.copy() for path, rows in leaves.items()})
    share = np.concatenate(within).mean(axis=0)
    own = ((real >= low) & (real <= high)).mean(axis=0)
    dots = [check("A7", "frames with exactly one dot", float(np.mean(clean)), least=ONE_DOT)] if clean else []
    return [
        *dots,
        check("A7", f"numbers that are none in {LANES} x {STEPS} steps", float(not finite), most=0),
        check(
            "A7",
            f"frames in the real band (worst statistic; reality {own.min():.3f})",
            float(share.min()),
            least=WITHIN,
        ),
        *_round_trip(subject.world, dreamt, [episode.observation for episode in episodes]),
    ]


def _round_trip(world: World, dreamt: Sequence[Leaves], real: Sequence[Leaves]) -> list[Check]:
    """What of dreamt frames is not in their codes, over the same of as many real ones, for worlds that tell it."""
    frames, reality = (
        {path: np.concatenate([leaves[path] for leaves in parts]) for path in parts[0]} for parts in (dreamt, real)
    )
    found = _residual(world, frames)
    if found is None:
        return []
    picked = np.linspace(0, len(next(iter(reality.values()))) - 1, len(found)).astype(int)
    truth = _residual(world, {path: rows[picked] for path, rows in reality.items()})
    assert truth is not None
    ratio = max(float(found.mean()), ROUNDED) / max(float(truth.mean()), ROUNDED)
    return [check("A7", f"what no code shows of dreamt frames, over real ones ({truth.mean():.3g})", ratio, most=2)]


@torch.inference_mode()
def _residual(world: World, frames: Leaves) -> Array | None:
    """(n,) of frames that each open a context; None where the world tells none."""
    if "context" not in world.spec.capabilities:
        return None
    count, found = len(next(iter(frames.values()))), list[Array]()
    for first in range(0, count, 16):
        rows = np.minimum(np.arange(first, first + 16), count - 1)
        seed, opens = torch.zeros(16, dtype=torch.int64), torch.ones(16, dtype=torch.bool)
        action = {
            leaf.path: torch.zeros((16, *leaf.shape), dtype=torch_dtype(leaf.dtype))
            for leaf in leaves_of(world.spec.action_space, "action")
        }
        draws = {call: lane_draws(world.draws[call], seed, seed, call) for call in ("observe", "step")}
        shown = {path: torch.from_numpy(values[rows]) for path, values in frames.items()}
        state = world.observe(world.allocate(16), shown, action, opens, draws["observe"])
        aux = world.step(state, action, draws["step"])[1].aux
        if RESIDUAL not in aux:
            return None
        found.append(aux[RESIDUAL].numpy())
    return np.concatenate(found)[:count]


def wrong_dreams(subject: Subject) -> list[Check]:
    """Area under the curve of the mean uncertainty for dreams whose error is more than twice the median one."""
    if "uncertainty" not in subject.world.spec.capabilities:
        return [remark("A7", "detector of wrong dreams: the family tells no uncertainty")]
    episodes = subject.fresh(REAL_STEPS // 2)
    windows = cut_windows(episodes, LEAD, 256, subject.world.context_frames)
    guess, rollout = forecast(subject.world, windows, copies=1)
    whole = windows.valid[:, -1]
    error = np.sqrt((((guess - windows.truth) / spread(episodes))[:, 1:] ** 2).mean(-1)).mean(1)[whole]
    unsure = rollout.uncertainty.mean(axis=1)[whole]
    if not len(error):
        return [remark("A7", f"detector of wrong dreams: no episode lasts {windows.valid.shape[1]} steps")]
    wrong = error > max(2 * float(np.median(error)), RIGHT)
    if not wrong.any():
        return [
            remark("A7", f"no dream is wrong: the largest error of {len(error)} is {error.max():.2g} of the spread")
        ]
    if wrong.sum() < LEAST_WRONG:
        return [remark("A7", f"detector of wrong dreams: {wrong.sum()} of {len(wrong)} to be told")]
    return [
        check("A7", f"detector of wrong dreams, AUROC (base rate {wrong.mean():.2f})", auroc(unsure, wrong), least=0.8)
    ]


def _limited(subject: Subject) -> bool:
    environment = make_environment(subject.env_id, subject.env_kwargs)
    try:
        return max_episode_steps(environment) is not None
    finally:
        close(environment)


def _statistics(leaves: Leaves) -> Array:
    """(n, S): of a picture its mean, its spread and its share of bright pixels; of a vector every number."""
    parts: list[Array] = []
    for array in leaves.values():
        flat = array.reshape(len(array), -1)
        if is_picture(array, 1):
            light = flat.astype(np.float32)
            parts += [light.mean(1)[:, None], light.std(1)[:, None], (light > 127).mean(1)[:, None]]
        else:
            parts.append(flat.astype(np.float64))
    return np.concatenate(parts, axis=1)


def _grey(leaves: Leaves) -> Array:
    """(S,) what the statistics of pictures may be off, beside rounding; nothing of how many pixels are bright."""
    parts = [
        np.array([GREY, GREY, 0.0]) if is_picture(array, 1) else np.zeros(array.reshape(len(array), -1).shape[1])
        for array in leaves.values()
    ]
    return np.concatenate(parts)
