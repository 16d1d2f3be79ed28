"""What waits for a tick: one object a request, with the place for its answer. Knows no tensors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, Literal

from simservice.engine.batching import Span
from simservice.engine.control import Control
from simservice.errors import SimserviceError
from simservice.sessions.lanes import Reset, Step
from simservice.types import Array
from simservice.worlds.world import Tensors

Kind = Literal["step", "reset", "render", "look", "snapshot", "restore", "copy", "borrow", "commit", "release", "clear"]


@dataclass(frozen=True)
class Copy:
    """Lanes to copy, and where to; the request is for all of both."""

    source: Array  # (n,) int64
    target: Array  # (n,) int64, each once and none of them a source
    seeds: Array | None  # (n,) int64: luck of their own


@dataclass(frozen=True)
class Borrowed:
    """Copies of what some lanes were, and of the scratch lane as one more: enough to play them elsewhere."""

    rows: Tensors  # (n + 1, ...)
    control: Control  # n + 1 entries


@dataclass(slots=True, eq=False)
class Request:
    """A request for some lanes; `result` or `error` is set once a tick has done it."""

    kind: Kind
    lanes: Array  # (n,) int64
    where: Span  # the same lanes as an index of host arrays, a slice where they are neighbours
    command: Any  # Step, Reset, Copy by their kinds, bytes for "restore", Borrowed for "commit"; else None
    future: asyncio.Future[Any] | None  # None: nobody waits
    allowed: bool = False  # nothing waits for these lanes, and they were seen to be in a state to be stepped
    result: Any = field(default=None)
    error: SimserviceError | None = field(default=None)
    handed_ns: int = field(default_factory=perf_counter_ns)

    @property
    def step(self) -> Step:
        """The command of a step."""
        assert isinstance(self.command, Step)
        return self.command

    @property
    def reset(self) -> Reset:
        """The command of a reset."""
        assert isinstance(self.command, Reset)
        return self.command
