"""How wrong a world is one step ahead on recorded episodes, beside how uncertain it says it is: for calibrating it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from simservice.types import Array, Episode
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import Tensors, World

_FRAMES = 8  # a window: its first frame opens the context, each next one adds to it
_WINDOWS = 256


@torch.no_grad()
def one_step_errors(world: World, episodes: Sequence[Episode]) -> tuple[Tensor, Tensor]:
    """(true NRMSE (n,), what the world said its uncertainty is (n,)) of steps from grounded frames.

    The world is grounded in windows of up to 8 frames, and from each frame it steps once with the recorded action. An
    element's error is relative to its spread over the windows; elements that never vary count as they are. The same
    episodes give the same figures.
    """
    observation, action, valid = _windows(episodes)
    device = next(iter(world.state_dict().values())).device
    lanes = len(valid)
    spread = {path: _spread(rows) for path, rows in observation.items()}
    seeds = torch.arange(lanes, device=device)
    state = world.allocate(lanes, device)
    nothing = {path: torch.zeros_like(rows[:, 0]).to(device) for path, rows in action.items()}
    missed, said = [], []
    for time in range(valid.shape[1]):
        frame = {path: rows[:, time].to(device) for path, rows in observation.items()}
        acted = {path: rows[:, time].to(device) for path, rows in action.items()}
        previous = nothing if time == 0 else {path: rows[:, time - 1].to(device) for path, rows in action.items()}
        first = torch.full((lanes,), time == 0, device=device)
        moment = torch.full_like(seeds, time)
        draws = lane_draws(world.draws["observe"], seeds, moment, "observe")
        state = world.observe(state, frame, previous, first, draws)
        ahead, out = world.step(state, acted, lane_draws(world.draws["step"], seeds, moment, "step"))
        kept = valid[:, time]
        squares = [
            ((rows.cpu() - observation[path][:, time + 1]).double() / spread[path]).square().reshape(lanes, -1)
            for path, rows in world.emit(ahead).items()
        ]
        missed.append(torch.cat(squares, dim=-1).mean(-1).sqrt()[kept])
        said.append(out.uncertainty.cpu()[kept])
    return torch.cat(missed).float(), torch.cat(said)


def _windows(episodes: Sequence[Episode]) -> tuple[Tensors, Tensors, Tensor]:
    """Observations (n, frames + 1, ...), actions (n, frames, ...) and which of those steps were taken (n, frames)."""
    places = [(i, first) for i, episode in enumerate(episodes) for first in range(0, len(episode), _FRAMES)]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), _WINDOWS)).round().astype(int))
    seen, acted, valid = [], [], []
    for episode, first in ((episodes[places[i][0]], places[i][1]) for i in chosen):
        steps = np.arange(first, first + _FRAMES)
        valid.append(steps < len(episode))
        seen.append(_rows(episode.observation, np.minimum(np.arange(first, first + _FRAMES + 1), len(episode))))
        acted.append(_rows(episode.action, np.minimum(steps, len(episode) - 1)))
    return _stacked(seen), _stacked(acted), torch.from_numpy(np.stack(valid))


def _rows(leaves: dict[str, Array], places: Array) -> dict[str, Array]:
    return {path: rows[places] for path, rows in leaves.items()}


def _stacked(parts: list[dict[str, Array]]) -> Tensors:
    return {path: torch.from_numpy(np.stack([part[path] for part in parts])) for path in parts[0]}


def _spread(rows: Tensor) -> Tensor:
    """(...) standard deviation of each element over windows and frames; 1 where it never varies."""
    deviation = rows.flatten(0, 1).double().std(0)
    return torch.where(deviation > 1e-9, deviation, torch.ones_like(deviation))
