"""Turns recorded episodes into held-out ones and training segments. A batch is a function of (seed, phase, update)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from simservice.errors import InvalidInput
from simservice.types import Array, Episode
from simservice.worlds.world import Batch, Phase, Tensors

HELD_OUT_SHARE = 0.1
_ENOUGH_EPISODES = 8  # of so many, two are held out at least: one alone says nothing about how episodes differ
_TOO_LARGE_SHARE = 0.25  # one episode that is more of the data than this is held out only if there is no other


def split(episodes: Sequence[Episode], share: float = HELD_OUT_SHARE) -> tuple[list[Episode], list[Episode]]:
    """(training, held out): whole episodes that hold at least `share` of the steps, chosen by their contents.

    So an episode keeps its side when others are appended to the dataset, as far as the share allows. A single
    episode is cut in two. Raises InvalidInput when there are too few steps for two parts.
    """
    total = sum(len(episode) for episode in episodes)
    if total < 2:
        raise InvalidInput("dataset", f"{total} steps cannot be split into training and held-out ones; record more")
    if len(episodes) == 1:
        cut = min(total - 1, int(total * (1 - share)))
        return [_cut(episodes[0], 0, cut)], [_cut(episodes[0], cut, total)]
    order = sorted(
        range(len(episodes)), key=lambda i: (len(episodes[i]) > _TOO_LARGE_SHARE * total, _digest(episodes[i]))
    )
    least = 2 if len(episodes) >= _ENOUGH_EPISODES else 1
    held: set[int] = set()
    steps = 0
    for i in order[:-1]:
        if steps >= share * total and len(held) >= least:
            break
        held.add(i)
        steps += len(episodes[i])
    training = [episode for i, episode in enumerate(episodes) if i not in held]
    return training, [episode for i, episode in enumerate(episodes) if i in held]


def _digest(episode: Episode) -> bytes:
    digest = hashlib.sha256()
    for leaves in (episode.observation, episode.action):
        for array in leaves.values():
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _cut(episode: Episode, first: int, end: int) -> Episode:
    whole = end == len(episode)
    return replace(
        episode,
        observation={path: rows[first : end + 1] for path, rows in episode.observation.items()},
        action={path: rows[first:end] for path, rows in episode.action.items()},
        reward=episode.reward[first:end],
        terminated=episode.terminated and whole,
        truncated=episode.truncated and whole,
    )


class Loader:
    """Segments of training episodes as batches on a device."""

    def __init__(self, episodes: Sequence[Episode], seed: int, device: torch.device | str = "cpu") -> None:
        lengths = np.array([len(episode) for episode in episodes])
        self._seed = seed
        self._device = torch.device(device)
        self._observation = _joined([episode.observation for episode in episodes], self._device)
        self._action = _joined([episode.action for episode in episodes], self._device)
        self._reward = torch.from_numpy(np.concatenate([episode.reward for episode in episodes])).float().to(device)
        terminated = np.zeros(int(lengths.sum()), dtype=bool)
        terminated[np.cumsum(lengths) - 1] = [episode.terminated for episode in episodes]
        self._terminated = torch.from_numpy(terminated).to(device)
        self.steps = int(lengths.sum())
        self._episode = np.repeat(np.arange(len(episodes)), lengths)  # of each step
        self._end = np.repeat(np.cumsum(lengths), lengths)  # the step after the episode's last
        self._resamples: dict[tuple[int, int], Array] = {}

    def batch(self, phase: Phase, place: int, update: int) -> Batch:
        """The batch of one update of the phase at `place` in the schedule: the same whenever it is asked for."""
        generator = np.random.default_rng([self._seed, place, update])
        rows = phase.batch_size // phase.groups
        picked = generator.integers(self.steps, size=(phase.groups, rows))
        if phase.groups > 1:
            picked = np.take_along_axis(self._resample(place, phase.groups), picked, axis=1)
        return self._segments(picked.reshape(-1), phase.segment_length)

    def _resample(self, place: int, groups: int) -> Array:
        """(groups, steps): each group's own draw, with replacement, of as many steps as there are."""
        key = (place, groups)
        if key not in self._resamples:
            generator = np.random.default_rng([self._seed, place])
            self._resamples[key] = generator.integers(self.steps, size=(groups, self.steps))
        return self._resamples[key]

    def _segments(self, first: Array, length: int) -> Batch:
        """Windows that begin at the given steps; beyond an episode's end its last row is repeated."""
        step = first[:, None] + np.arange(length)
        end = self._end[first][:, None]
        valid = step < end
        shift = self._episode[first][:, None]  # each earlier episode has one row more than steps
        row = np.minimum(first[:, None] + np.arange(length + 1), end) + shift
        steps, rows = torch.from_numpy(np.minimum(step, end - 1)), torch.from_numpy(row)
        steps, rows = steps.to(self._device), rows.to(self._device)
        is_first = torch.zeros(rows.shape, dtype=torch.bool, device=self._device)
        is_first[:, 0] = True
        counted = torch.from_numpy(valid).to(self._device)
        return Batch(
            observation={path: values[rows] for path, values in self._observation.items()},
            action={path: values[steps] for path, values in self._action.items()},
            reward=self._reward[steps],
            terminated=self._terminated[steps] & counted,
            is_first=is_first,
            valid=counted,
        )


def _joined(parts: Sequence[dict[str, Array]], device: torch.device) -> Tensors:
    return {path: _tensor(np.concatenate([part[path] for part in parts]), device) for path in parts[0]}


def _tensor(array: Array, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
