"""Golden replays: real episodes played again from their reset seeds and actions, which must come out as they did.

Instant and without luck, where reality can be repeated; where it cannot, there are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from simservice.fidelity.pixels import seen
from simservice.monitor.rig import RealRig
from simservice.types import Array, Episode, from_leaves

EPISODES = 16
TOLERANCE = 10 * float(np.finfo(np.float32).eps)
"""Of an observation's or reward's size: ten times what float32 rounds."""

ROUNDS = 2
"""Deviating ones in a row that alarm."""


@dataclass(frozen=True)
class GoldenReplay:
    """The episodes and how large their numbers are."""

    episodes: tuple[Episode, ...]
    scale: Array  # (D,) of observations
    reward_scale: float

    @classmethod
    def of(cls, rig: RealRig, episodes: Sequence[Episode]) -> GoldenReplay | None:
        """From recorded episodes that tell their seeds; None where reality does not repeat itself."""
        seeded = [episode for episode in episodes if episode.seed is not None][:EPISODES]
        if not seeded:
            return None
        states = np.concatenate([seen(episode.observation, lead=1) for episode in seeded])
        rewards = np.concatenate([episode.reward for episode in seeded])
        scale = np.maximum(np.abs(states).max(axis=0), 1e-6)
        made = cls(tuple(seeded), scale, max(float(np.abs(rewards).max()), 1e-6))
        return made if made.deviation(rig) <= 1.0 else None

    def deviation(self, rig: RealRig) -> float:
        """Plays them again: the largest deviation over the tolerance. Another end or length is infinite."""
        return max(self._deviation(rig, episode) for episode in self.episodes)

    def _deviation(self, rig: RealRig, episode: Episode) -> float:
        space = rig.spaces[1]
        assert episode.seed is not None
        rows = range(len(episode))
        actions = [
            from_leaves(space, {path: array[row : row + 1] for path, array in episode.action.items()}, "action")
            for row in rows
        ]
        found = rig.replay(episode.seed, actions)
        if (len(found), found.terminated, found.truncated) != (len(episode), episode.terminated, episode.truncated):
            return float("inf")
        states = np.abs(seen(found.observation, lead=1) - seen(episode.observation, lead=1)) / self.scale
        rewards = np.abs(found.reward - episode.reward) / self.reward_scale
        return float(max(states.max(), rewards.max())) / TOLERANCE


@dataclass
class GoldenWatch:
    """How the replays went so far; plain numbers, to be kept."""

    deviation: float | None = None  # of the last round; None: not measured, or reality does not repeat itself
    deviating: int = 0  # rounds in a row
    rounds: int = 0
    alarmed: bool = False
    applies: bool | None = None  # None: not yet known
    alarms: int = field(default=0)

    def note(self, deviation: float) -> bool:
        """Counts a round; True when it raises the alarm."""
        self.rounds += 1
        self.deviation = deviation
        self.deviating = self.deviating + 1 if deviation > 1.0 else 0
        raised = self.deviating >= ROUNDS and not self.alarmed
        if raised:
            self.alarmed = True
            self.alarms += 1
        return raised

    @property
    def suspicious(self) -> bool:
        """The last round deviated."""
        return self.deviating > 0
