"""What may be set of the sessions of a replica, and what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """The limits a session lives in."""

    max_num_envs: int = 4096  # lanes one session may hold
    snapshot_every_steps: int = 256  # requests between snapshots: bounds the replay and the journal
    replies_kept: int = 8  # how many of the newest answers a repeat may still fetch
    idle_ttl_s: float = 600.0  # a session nobody drives is closed after this
    detached_ttl_s: float = 30.0  # lanes of a broken stream are given up after this; the session itself stays


@dataclass
class SessionStats:
    """Counters of one service since it began; `open` and `lanes` are of now."""

    open: int = 0
    lanes: int = 0
    opened: int = 0
    resumed: int = 0
    adopted: int = 0  # of resumed: taken over from another stream with their lanes
    requests: int = 0
    repeats: int = 0  # requests answered from the kept replies
    refused: int = 0  # requests the engine refused without effect
    fenced: int = 0
    lost: int = 0  # lanes dropped because the journal could not be written
    expired: int = 0
    snapshots: int = 0
