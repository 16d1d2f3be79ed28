"""Plays in a served world what was played in reality: the same starts and actions, or the same policies.

Talks to the service as any client does, and knows no metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from simservice.client.session import RemoteSession
from simservice.data.policies import Policy
from simservice.errors import CapacityExhausted
from simservice.fidelity.pixels import picture, seen
from simservice.monitor.reality import Window
from simservice.types import Array, Context, Episode, Leaves, StepResult, from_leaves, leaves_of, to_leaves

MIN_LANES = 16


@dataclass(frozen=True)
class Imagined:
    """Open-loop trajectories, (windows, copies, ...)."""

    observation: Array  # (N, C, H + 1, D)
    reward: Array  # (N, C, H)
    terminated: Array  # (N, C, H) bool
    valid: Array  # (N, C, H) bool: until the world said that the episode ended
    uncertainty: Array  # (N, C, H) as the world states it; NaN where it states none
    frames: Array | None = None  # (N, C, H + 1, height, width, colours) uint8, where they were asked for


@dataclass(frozen=True)
class Played:
    """One closed-loop episode in each lane, from the world's own starts."""

    returns: Array  # (L,) undiscounted
    valid: Array  # (L, T) bool
    uncertainty: Array  # (L, T); NaN where the world states none


class DreamPlayer:
    """A session of a served world that is grounded anew for every question asked of it."""

    def __init__(self, address: str, world: str, lanes: int) -> None:
        self.session = _open(address, world, lanes)
        self.lanes = self.session.num_envs
        self.spec = self.session.contract.spec
        self.steps = 0  # imagined so far

    def __enter__(self) -> DreamPlayer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()

    def replay(
        self,
        episodes: list[Episode],
        windows: list[Window],
        horizon: int,
        copies: int,
        seed: int,
        *,
        keep_frames: bool = False,
    ) -> Imagined:
        """The real actions after each window's real start, `copies` times each with luck of their own.

        Where reality ended before the horizon its last action is repeated, and once it has ended in all windows that
        are played together the rest is left out as not valid: nobody scores those steps.
        """
        rows = [(window, copy) for window in windows for copy in range(copies)]
        parts = [
            self._replay_rows(
                episodes, [window for window, _ in rows[first : first + self.lanes]], horizon, seed + first, keep_frames
            )
            for first in range(0, len(rows), self.lanes)
        ]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Imagined(
            **{name: array.reshape(len(windows), copies, *array.shape[1:]) for name, array in joined.items()}
        )

    def _replay_rows(
        self, episodes: list[Episode], windows: list[Window], horizon: int, seed: int, keep_frames: bool
    ) -> dict[str, Array]:
        count = len(windows)
        padded = [windows[min(i, count - 1)] for i in range(self.lanes)]  # a session steps all of its lanes
        starts = _rows(episodes, padded, 0, "observation")
        context = Context(
            observation={path: array[:, None] for path, array in starts.items()},
            action={path: array[:, None][:, :0] for path, array in _rows(episodes, padded, 0, "action").items()},
        )
        observation = self.session.reset(seeds=_seeds(seed, self.lanes), context=context).observation
        states, frames = [seen(observation, lead=1)[:count]], [picture(observation, lead=1) if keep_frames else None]
        rewards, ends, doubts = [], [], []
        alive = max(len(episodes[window.episode]) - window.start for window in windows)
        for step in range(min(horizon, alive)):
            stepped = self._step(_rows(episodes, padded, step, "action"))
            states.append(seen(stepped.observation, lead=1)[:count])
            frames.append(picture(stepped.observation, lead=1) if keep_frames else None)
            rewards.append(stepped.reward[:count])
            ends.append((stepped.terminated[:count], stepped.truncated[:count]))
            doubts.append(_uncertainty(stepped)[:count])
        terminated, truncated = (np.stack([end[i] for end in ends], axis=1) for i in (0, 1))
        valid = _until_first(terminated | truncated)
        found = {
            "observation": _filled(np.stack(states, axis=1), horizon + 1),
            "reward": _filled(np.stack(rewards, axis=1), horizon),
            "terminated": _filled(terminated & valid, horizon),
            "valid": _filled(valid, horizon),
            "uncertainty": _filled(np.stack(doubts, axis=1), horizon),
        }
        pictures = [frame[:count] for frame in frames if frame is not None]
        return found | ({"frames": _filled(np.stack(pictures, axis=1), horizon + 1)} if pictures else {})

    def episodes(self, policy: Policy, max_steps: int | None, seed: int) -> Played:
        """One episode in each lane. Lanes that ended early go on, and what they do then is not counted."""
        total, running = np.zeros(self.lanes), np.ones(self.lanes, dtype=bool)
        valid, doubts = [], []
        leaves = self.session.reset(seeds=_seeds(seed, self.lanes)).observation
        for _ in _count_to(max_steps):
            action = policy(from_leaves(self.spec.observation_space, leaves, "observation"))
            stepped = self._step(self._typed(action))
            leaves = stepped.observation
            total += np.where(running, stepped.reward, 0.0)
            valid.append(running.copy())
            doubts.append(_uncertainty(stepped))
            running &= ~(stepped.terminated | stepped.truncated)
            if not running.any():
                break
        return Played(total, np.stack(valid, axis=1), np.stack(doubts, axis=1))

    def returns(self, policy: Policy, episodes: int, max_steps: int | None, seed: int) -> Array:
        """(episodes,) undiscounted returns of one episode in each of as many lanes, from the world's own starts."""
        found: list[Array] = []
        while sum(map(len, found)) < episodes:
            found.append(self.episodes(policy, max_steps, seed + len(found)).returns)
        return np.concatenate(found)[:episodes]

    def _step(self, action: Leaves) -> StepResult:
        self.steps += self.lanes
        return self.session.step(action)

    def _typed(self, action: Any) -> Leaves:
        leaves = to_leaves(self.spec.action_space, action, "action")
        return {leaf.path: leaves[leaf.path].astype(leaf.dtype) for leaf in leaves_of(self.spec.action_space, "action")}


def _open(address: str, world: str, lanes: int) -> RemoteSession:
    """A session with as many of the lanes as there is room for, down to a few."""
    while True:
        try:
            return RemoteSession(address, world, num_envs=lanes)
        except CapacityExhausted:
            if lanes <= MIN_LANES:
                raise
            lanes = max(MIN_LANES, lanes // 2)


def _rows(episodes: list[Episode], windows: list[Window], step: int, part: str) -> Leaves:
    """One row of each window's episode, `step` steps in (the episode's last row beyond its end): (windows, ...)."""
    rows: list[Leaves] = []
    for window in windows:
        leaves = getattr(episodes[window.episode], part)
        rows.append({path: array[min(window.start + step, len(array) - 1)] for path, array in leaves.items()})
    return {path: np.stack([row[path] for row in rows]) for path in rows[0]}


def _uncertainty(stepped: StepResult) -> Array:
    """(lanes,) float64; NaN where the world says nothing of it."""
    info = stepped.infos.get("uncertainty")
    if info is None:
        return np.full(len(stepped.reward), np.nan)
    return np.where(info.present, info.value, np.nan).astype(np.float64)


def _seeds(seed: int, lanes: int) -> Array:
    return (np.random.SeedSequence(seed).generate_state(lanes, np.uint64) >> np.uint64(1)).astype(np.int64)


def _filled(array: Array, length: int) -> Array:
    """Zeros (False) behind the rows (N, T, ...) up to the length."""
    missing = length - array.shape[1]
    return np.pad(array, [(0, 0), (0, missing), *[(0, 0)] * (array.ndim - 2)])


def _until_first(ended: Array) -> Array:
    """True up to and with the first True of each row."""
    before = np.zeros_like(ended)
    before[:, 1:] = np.logical_or.accumulate(ended, axis=1)[:, :-1]
    return ~before


def _count_to(limit: int | None) -> Iterator[int]:
    step = 0
    while limit is None or step < limit:
        yield step
        step += 1
