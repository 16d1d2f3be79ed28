"""What sessions ask of whoever steps lanes, and the commands that travel between them. Knows no tensors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gymnasium.vector import AutoresetMode

from simservice.errors import SimserviceError
from simservice.types import (
    TRUSTING,
    Array,
    Caution,
    Context,
    Imagine,
    Imagined,
    Leaves,
    ResetResult,
    StepResult,
    WorldSpec,
)


@dataclass(frozen=True)
class Step:
    """One action per lane, by leaf path, already checked against the action space."""

    action: Leaves  # (lanes, ...)
    # Told the result as soon as there is one, while what goes beside the step is still under way; perhaps never, and
    # the step may yet fail. Raises nothing.
    shown: Callable[[StepResult], None] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Reset:
    """Starts episodes in the lanes of `mask` (None: all)."""

    mask: Array | None = None  # (lanes,) bool
    seeds: Array | None = None  # (lanes,) int64, -1: not seeded
    context: Context | None = None
    options: dict[str, Any] = field(default_factory=dict)


Command = Step | Reset


@dataclass(frozen=True)
class Fork:
    """Copies lanes into a new session; new lane i * copies + j is copy j of lanes[i]."""

    lanes: Array | None  # (n,) int64, places in the session; None: all
    copies: int
    fresh: bool  # luck of their own, instead of the parent's
    seeds: Array | None  # (n * copies,) int64, with fresh luck; None: drawn
    key: bytes


@dataclass(frozen=True)
class Save:
    """Keeps what all lanes are now."""


@dataclass(frozen=True)
class Restore:
    """Makes all lanes what they were at a save."""

    point: int


@dataclass(frozen=True)
class Forget:
    """Gives saved points up."""

    points: tuple[int, ...]


Branch = Fork | Save | Restore | Forget


@dataclass(frozen=True)
class Forked:
    """The new session."""

    token: str
    num_envs: int


@dataclass(frozen=True)
class Saved:
    """The number to restore by."""

    point: int


@dataclass(frozen=True)
class Restored:
    """What the lanes show where they are now."""

    observation: Leaves


@dataclass(frozen=True)
class Forgotten:
    """They are."""


@dataclass(frozen=True)
class Rolled:
    """An advancing rollout, as its answer is kept: whoever asks again has it played again from what the lanes were."""

    command: Imagine
    before: bytes


Result = StepResult | ResetResult | Forked | Saved | Restored | Forgotten | Rolled


class Rollout(Protocol):
    """A rollout under way: its parts in order, or the error that ended it."""

    before: bytes | None
    """What the lanes were, as a snapshot; with an advancing one, once it gave a part."""

    def __aiter__(self) -> AsyncIterator[Imagined]: ...

    async def __anext__(self) -> Imagined: ...

    async def over(self) -> bool:
        """Waits until nothing more will be played; tells whether it was played to its end."""

    def stop(self, error: SimserviceError | None = None) -> None:
        """Ends it after the step it is in; whoever listens gets the error, by default DeadlineExceeded.

        One that is over stays as it is.
        """


class LaneEngine(Protocol):
    """Holds lanes and steps them.

    Called from one event loop. Methods that return a future have handed the work in when they return, keep the order
    in which they were called for the same lanes, and either do all of the work or none of it: a future that fails
    with a recoverable error has changed no lane. `lanes` are the integers that allocate gave, in the session's order.

    `beside` is called once a request is taken and before it is done: what it sends is under way meanwhile. A refusal
    that is known at once is a future that has failed when it is returned, and `beside` is not called.
    """

    spec: WorldSpec
    lane_bytes: int
    capacity: int

    @property
    def lanes_in_use(self) -> int: ...

    def allocate(self, count: int, mode: AutoresetMode, seeds: Array, caution: Caution = TRUSTING) -> Array:
        """Takes `count` free lanes, seeded by `seeds` (count,) int64; all must be reset before they are stepped.

        Their steps obey the caution, which fits the world.

        Raises CapacityExhausted and takes none when fewer are free. Returns (count,) int64.
        """

    def release(self, lanes: Array) -> None:
        """Gives lanes back; work already handed in for them is finished first, its result dropped.

        Lanes without such work can be allocated again as soon as this returns.
        """

    def step(self, lanes: Array, command: Step, beside: Callable[[], None] | None = None) -> asyncio.Future[StepResult]:
        """Fails with NeedsReset when a lane was never reset or (mode DISABLED) has ended."""

    def reset(
        self, lanes: Array, command: Reset, beside: Callable[[], None] | None = None
    ) -> asyncio.Future[ResetResult]: ...

    def abandon(self, lanes: Array) -> None:
        """Nobody waits for the step or reset that was handed in for these lanes: if it has not begun, it is not done.

        Its future then fails with DeadlineExceeded; otherwise it ends as it would have. A rollout of them is stopped.
        """

    def imagine(self, lanes: Array, command: Imagine, policy: Any = None, before: bytes | None = None) -> Rollout:
        """A rollout of copies of the lanes as they are now, or as a snapshot `before` of all of them tells.

        Raises what is wrong with it. `policy` is what acts, where the command names one. The lanes stay as they are.
        """

    def commit(self, lanes: Array, rollout: Any) -> asyncio.Future[None]:
        """Makes the lanes what an advancing rollout, which is over, has made of their copies."""

    def render(self, lanes: Array) -> asyncio.Future[Array]:
        """(lanes, height, width, 3) uint8."""

    def snapshot(self, lanes: Array) -> asyncio.Future[bytes]:
        """All that the lanes are, as bytes; an engine with the same world version goes on from them identically."""

    def restore(self, lanes: Array, snapshot: bytes) -> asyncio.Future[None]:
        """Makes the lanes what the snapshot of as many lanes holds; their autoreset mode stays."""

    def copy(self, source: Array, target: Array, seeds: Array | None) -> asyncio.Future[None]:
        """Makes each lane of `target` what the lane of `source` at its place is, on the device.

        A lane may be a source several times and a target once; none is both. With `seeds` (targets,) int64 the copies
        have luck of their own from here on.
        """

    def look(self, lanes: Array) -> asyncio.Future[Leaves]:
        """The present observation, (lanes, ...); zeros for lanes that were never reset."""

    def accompany(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        """Has `before` called when a tick on the event loop begins, `after` when its work is done.

        What travels beside the tick leaves with the one and is taken in with the other.
        """
