"""Figures of a world with a latent state: what it holds, how it is grounded, and what a second sense costs the first.

grounded_figures  vector_figures, and grounding_ratio: one-step error after a context that opens in mid-episode,
                  over that at the same steps after the whole episode from its real start
latent_figures    cartpole_figures, and probe_position, probe_angle: R² of a linear reading of the grounded state
both_figures      latent_figures, and the errors ten steps on over those of worlds with one sense alone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from gymnasium import spaces

from simservice.data.episodes import fingerprint
from simservice.fidelity.pixels import is_picture
from simservice.grounds import cartpole_pixels
from simservice.proving.measures import vector_figures
from simservice.proving.measures_pictures import cartpole_figures
from simservice.proving.recipe import Figures, Trial
from simservice.training.trainer import train
from simservice.training.windows import cut_windows, forecast, nrmse, spread
from simservice.types import Array, Episode
from simservice.worlds.checkpoint import load
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import World

PROBE_STEPS = 15_000  # carts drive far to both sides in each half; of 6,000 the frames themselves were read with R² .5
BOTH_STEPS = 6_000
LEAD = 10
_TOGETHER = 64  # episodes of about one length that are grounded at once
_LONG = 64  # frames of context: the whole episode, for those that count here
_RIDGES = (1.0, 10.0, 100.0, 1_000.0)  # one-hots of 32 variables are many: too weak, and episodes are learned by heart

States = tuple[Array, dict[str, Array]]
"""Grounded latent states (n, D) frame by frame, and what the frames truly show."""


def grounded_figures(trial: Trial) -> Figures:
    """As vector_figures, with the grounding test."""
    episodes = trial.fresh(3_000)
    scale = spread(trial.training)
    late, early = ((_one_step(trial.world, episodes, scale, frames)) for frames in (trial.world.context_frames, _LONG))
    # Windows of which the short context is not the whole past, and the long one is.
    chosen = (early[1] > trial.world.context_frames) & (early[1] < _LONG)
    mid, start = (float(np.sqrt(np.mean(error[0][chosen] ** 2))) for error in (late, early))
    first = float(np.sqrt(np.mean(early[0][early[1] == 1] ** 2)))
    return vector_figures(trial) | {
        "grounding_ratio": mid / start,
        "error_1_mid_episode": mid,
        "error_1_whole_past": start,
        "error_1_first_frame": first,
    }


def _one_step(world: World, episodes: Sequence[Episode], scale: Array, frames: int) -> tuple[Array, Array]:
    """(n,) NRMSE one step ahead, and how many frames of context there were."""
    windows = cut_windows(episodes, 1, 1_000, frames)
    guess, _ = forecast(world, windows)
    missed: Array = np.sqrt((((guess - windows.truth) / scale)[:, 1] ** 2).mean(-1))
    return missed, windows.frames


def latent_figures(trial: Trial) -> Figures:
    """As cartpole_figures, with the linear probes; they are fitted and scored on different episodes."""
    episodes = trial.fresh(PROBE_STEPS)
    # Dealt out in turn: mixed play begins with random episodes.
    one, other, scored = (_states(trial.world, part) for part in (episodes[::4], episodes[2::4], episodes[1::2]))
    found: Figures = {}
    for name in ("position", "angle"):
        ridge = max(_RIDGES, key=lambda each: _read([one], other, name, each))
        found[f"probe_{name}"] = _read([one, other], scored, name, ridge)
    return cartpole_figures(trial) | found


def both_figures(trial: Trial) -> Figures:
    """As latent_figures, beside worlds of the same recipe and data that see the picture or the vector alone."""
    episodes = trial.fresh(BOTH_STEPS)
    paths = list(episodes[0].observation)
    picture = next(path for path in paths if is_picture(episodes[0].observation[path], 1))
    vector = next(path for path in paths if path != picture)
    found = latent_figures(trial)
    for name, path in (("picture", picture), ("vector", vector)):
        world = _single(trial, path)
        alone = _error(world, [_only(episode, path) for episode in episodes], slice(None))
        whole = cut_windows(episodes[:1], 1, 1).truth.shape[-1]
        own = cut_windows([_only(episodes[0], path)], 1, 1).truth.shape[-1]
        columns = slice(0, own) if paths[0] == path else slice(whole - own, None)
        both = _error(trial.world, episodes, columns)
        found |= {f"{name}_of_single": both / alone, f"{name}_error_{LEAD}": both, f"{name}_alone_error_{LEAD}": alone}
    return found


def _only(episode: Episode, path: str) -> Episode:
    return replace(episode, observation={"observation": episode.observation[path]})


def _single(trial: Trial, path: str) -> World:
    """A world of one of the senses, trained on the recipe's own data."""
    space = trial.dataset.observation_space
    assert isinstance(space, spaces.Dict)
    episodes = tuple(_only(episode, path) for episode in trial.dataset.episodes)
    key = path.removeprefix("observation/")
    dataset = replace(trial.dataset, episodes=episodes, observation_space=space[key], hash=fingerprint(episodes))
    out = trial.folder.parent / f"{trial.folder.name}-{key}"
    train(dataset, trial.recipe.family, out, config=trial.recipe.training(trial.seed, trial.device))
    return load(out).world


def _error(world: World, episodes: Sequence[Episode], columns: slice) -> float:
    """NRMSE of some of the pooled features LEAD steps ahead, each relative to its own spread."""
    windows = cut_windows(episodes, LEAD, 200, world.context_frames)
    guess, _ = forecast(world, windows, copies=3)
    scale = windows.truth.reshape(-1, windows.truth.shape[-1]).std(0)[columns]
    chosen = replace(windows, truth=windows.truth[..., columns])
    return float(nrmse(guess[..., columns], chosen, np.where(scale > 1e-9, scale, np.inf))[-1])


def _states(world: World, episodes: Sequence[Episode]) -> States:
    """Of episodes of any lengths."""
    order = sorted(episodes, key=len)
    parts = [_grounded(world, order[first : first + _TOGETHER]) for first in range(0, len(order), _TOGETHER)]
    frames = np.concatenate([frames for _, frames in parts])
    return np.concatenate([rows for rows, _ in parts]), cartpole_pixels.read(frames)


def _grounded(world: World, episodes: Sequence[Episode]) -> tuple[Array, Array]:
    """The states (n, D) after each frame but an episode's first, and the frames (n, ...)."""
    names = [name for name, slot in world.slots.items() if slot.role == "latent"]
    rows, frames = list[Array](), list[Array]()
    length = max(len(episode) for episode in episodes) + 1
    seeds = torch.arange(max(16, len(episodes)))

    def at(leaves: dict[str, Array], time: int) -> dict[str, torch.Tensor]:
        return {path: torch.from_numpy(array[:, time]) for path, array in leaves.items()}

    observation, action = _padded(episodes, "observation", length), _padded(episodes, "action", length)
    picture = next(array for array in observation.values() if is_picture(array, 2))
    state = world.allocate(len(seeds))
    with torch.inference_mode():
        for time in range(length):
            first = torch.full(seeds.shape, time == 0)
            draws = lane_draws(world.draws["observe"], seeds, torch.full_like(seeds, time), "observe")
            state = world.observe(state, at(observation, time), at(action, max(time - 1, 0)), first, draws)
            alive = [lane for lane, episode in enumerate(episodes) if 0 < time <= len(episode)]
            if alive:
                rows.append(torch.cat([state[name][alive] for name in names], -1).double().numpy())
                frames.append(picture[alive, time])
    return np.concatenate(rows), np.concatenate(frames)


def _padded(episodes: Sequence[Episode], kind: str, length: int) -> dict[str, Array]:
    """(16 or more, length, ...) by leaf path: the last row of each episode repeated, the last episode too."""
    leaves = [getattr(episode, kind) for episode in episodes]
    leaves += [leaves[-1]] * max(0, 16 - len(leaves))
    return {
        path: np.stack([one[path][np.minimum(np.arange(length), len(one[path]) - 1)] for one in leaves])
        for path in leaves[0]
    }


def _read(fitted: Sequence[States], scored: States, name: str, ridge: float) -> float:
    """R² on states of a linear reading that was fitted on others."""
    rows = np.concatenate([_with_one(states) for states, _ in fitted])
    truth = np.concatenate([shown[name] for _, shown in fitted])
    weights = np.linalg.solve(rows.T @ rows + ridge * np.eye(rows.shape[1]), rows.T @ truth)
    states, shown = scored
    return float(1 - (shown[name] - _with_one(states) @ weights).var() / shown[name].var())


def _with_one(rows: Array) -> Array:
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
