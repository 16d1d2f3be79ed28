"""Figures of a world that keeps pictures as codes: how many codes are in use, and what its ring of frames remembers.

Names that recipes use in their bars:

    cartpole_token_figures  cartpole_figures and active_codes, angle_error_10_one_window, wrap_around
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from simservice.errors import InvalidInput
from simservice.grounds import cartpole_pixels
from simservice.proving.measures_pictures import CARTPOLE_STEPS, cartpole_figures
from simservice.proving.recipe import Figures, Trial
from simservice.types import Array, Context, Episode
from simservice.worlds.rollout import imagine
from simservice.worlds.world import World

AHEAD = 10  # steps
STARTS = 64
ROUNDS = 3  # windows of real frames: the ring has been written over so many times


def cartpole_token_figures(trial: Trial) -> Figures:
    """CartPole's figures of pictures; codes that fresh frames use; the angle's error after one window and three."""
    episodes, window = trial.fresh(CARTPOLE_STEPS), trial.world.context_frames
    short = angle_error(trial.world, episodes, window, ROUNDS * window)
    long = angle_error(trial.world, episodes, ROUNDS * window, ROUNDS * window)
    return {
        **cartpole_figures(trial),
        "active_codes": float(active_codes(trial.world, episodes)),
        "angle_error_10_one_window": short,
        "wrap_around": long / short,
    }


def angle_error(world: World, episodes: Sequence[Episode], frames: int, least: int) -> float:
    """Root mean square error of the pole's angle (rad) 10 steps after dreams began, grounded in so many real frames.

    Starts are up to 64 frames that have at least `least` - 1 real ones before them, evenly spread; so the same ones for
    any number of frames up to `least`. A frame without a pole counts as an upright one. Raises InvalidInput where no
    episode is long enough.
    """
    places = [(episode, last) for episode in episodes for last in range(least - 1, len(episode) - AHEAD + 1)]
    if not places:
        raise InvalidInput("episodes", f"none has {least} frames and {AHEAD} steps after them; record more")
    chosen = np.unique(np.linspace(0, len(places) - 1, min(STARTS, len(places))).round().astype(int))
    starts = [places[i] for i in chosen]

    def rows(kind: str, first: int, end: int) -> dict[str, Array]:
        paths = getattr(starts[0][0], kind)
        return {
            path: np.stack([getattr(episode, kind)[path][last + first : last + end] for episode, last in starts])
            for path in paths
        }

    context = Context(rows("observation", 1 - frames, 1), rows("action", 1 - frames, 0))
    dreamt = imagine(world, rows("action", 0, AHEAD), context=context, lanes_at_once=STARTS).observation
    (path,) = dreamt
    after = rows("observation", AHEAD, AHEAD + 1)[path]
    guess, real = (np.nan_to_num(cartpole_pixels.read(seen[:, -1])["angle"]) for seen in (dreamt[path], after))
    return float(np.sqrt(np.mean((guess - real) ** 2)))


def active_codes(world: World, episodes: Sequence[Episode]) -> int:
    """How many different codes the last frames of all episodes' steps are written in; the world keeps them as "codes".

    Raises InvalidInput for a world that keeps none.
    """
    if "codes" not in world.slots:
        raise InvalidInput("world", f"{world.family} keeps no codes of its frames")
    device = next(iter(world.state_dict().values())).device
    used: set[int] = set()
    for episode in episodes:
        lanes = len(episode) + 1
        frame = {path: torch.from_numpy(rows).to(device) for path, rows in episode.observation.items()}
        action = {
            path: torch.from_numpy(np.concatenate([rows[:1], rows])).to(device) for path, rows in episode.action.items()
        }
        first = torch.ones(lanes, dtype=torch.bool, device=device)
        with torch.inference_mode():
            state = world.observe(world.allocate(lanes, device), frame, action, first, {})
        used |= set(state["codes"][:, -1].flatten().tolist())
    return len(used)
