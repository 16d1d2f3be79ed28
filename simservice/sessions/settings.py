"""What may be set of the sessions of a replica, and what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from simservice.errors import PointsExhausted


class PointLimits(NamedTuple):
    """What the saved points of one session may be."""

    most: int
    most_bytes: int

    def exceeded(self, count: int, total_bytes: int, asked_bytes: int) -> PointsExhausted:
        """The error for one more point of so many bytes, where so many are."""
        if count + 1 > self.most:
            return PointsExhausted("points", asked=1, active=count, most=self.most)
        return PointsExhausted("bytes", asked=asked_bytes, active=total_bytes, most=self.most_bytes)


class RolloutLimits(NamedTuple):
    """What one rollout may be."""

    steps: int = 4096
    lanes: int = 16_384  # lanes times copies
    bytes: int = 2**30  # of all that it answers


ROLLOUT_LIMITS = RolloutLimits()
"""Where nobody sets others."""


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """The limits a session lives in."""

    max_num_envs: int = 4096  # lanes one session may hold
    snapshot_every_steps: int = 64  # requests between snapshots: bounds the replay and the journal
    max_journal_bytes: int = 4 * 2**20  # the same in bytes: of what is journaled when the next snapshot is taken
    max_replies_bytes: int = 8 * 2**20  # of the answers kept with a session that is put down
    max_points: int = 64  # saved points one session may hold
    max_points_bytes: int = 64 * 2**20  # of all of them together
    claims_in_replay: int = 3  # a session that so many claimants in a row did not bring back is brought back no more
    replies_kept: int = 8  # how many of the newest answers a repeat may still fetch
    max_rollout_steps: int = ROLLOUT_LIMITS.steps
    max_rollout_lanes: int = ROLLOUT_LIMITS.lanes  # lanes times copies, on the device besides those of the sessions
    max_rollout_bytes: int = ROLLOUT_LIMITS.bytes  # of all replies of one rollout
    rollout_deadline_s: float = 300.0  # a rollout that has not ended after this is ended, unless it says otherwise
    idle_ttl_s: float = 600.0  # a session nobody drives is closed after this
    deadline_s: float = 30.0  # a request that has not begun after this is not done, unless it says otherwise
    detached_ttl_s: float = 30.0  # lanes of a broken stream are given up after this; the session itself stays

    @property
    def point_limits(self) -> PointLimits:
        """Of saved points."""
        return PointLimits(self.max_points, self.max_points_bytes)

    @property
    def rollout_limits(self) -> RolloutLimits:
        """Of one rollout."""
        return RolloutLimits(self.max_rollout_steps, self.max_rollout_lanes, self.max_rollout_bytes)


@dataclass
class SessionStats:
    """Counters of one service since it began; `open` and `lanes` are of now."""

    open: int = 0
    lanes: int = 0
    opened: int = 0
    resumed: int = 0
    adopted: int = 0  # of resumed: taken over from another stream with their lanes
    forked: int = 0  # sessions made by forks
    requests: int = 0
    rollouts: int = 0  # of requests: rollouts that advanced their session
    repeats: int = 0  # requests answered from the kept replies
    refused: int = 0  # requests the engine refused without effect
    fenced: int = 0
    lost: int = 0  # lanes dropped because the journal could not be written
    put_down: int = 0  # given up in order, for another process to take over
    expired: int = 0
    snapshots: int = 0
