"""Decides which waiting requests join the next tick and how a batch is cut. Knows no tensors: a lane is an integer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np

from simservice.types import Array


class Waiting(Protocol):
    """A request for some lanes."""

    @property
    def lanes(self) -> Array: ...


W = TypeVar("W", bound=Waiting)

Span = slice | Array
"""Lanes as an index of host arrays: neighbours are a slice, which numpy reads ten times as fast as a list."""


def any_true(mask: Array) -> bool:
    """Whether any of some booleans is True, at a quarter of what numpy's own call costs a few hundred of them."""
    return 1 in mask.tobytes()


def all_true(mask: Array) -> bool:
    """Whether all of some booleans are True."""
    return 0 not in mask.tobytes()


def span(lanes: Array) -> Span:
    """Lanes in ascending order, as allocate gives them, as a span."""
    first, count = int(lanes[0]), len(lanes)
    return slice(first, first + count) if int(lanes[-1]) - first == count - 1 else lanes


def piece(where: Span, begin: int, end: int) -> Span:
    """The part of a span."""
    return slice(where.start + begin, where.start + end) if isinstance(where, slice) else where[begin:end]


def choose(waiting: Sequence[W], capacity: int) -> tuple[list[W], list[W]]:
    """Takes, in order of arrival, every request none of whose lanes an earlier one also wants; the rest wait.

    So a lane takes part in a tick at most once, and its requests keep their order.
    """
    if len(waiting) == 1:
        return list(waiting), []
    wanted = np.zeros(capacity, dtype=np.bool_)
    chosen: list[W] = []
    left: list[W] = []
    for request in waiting:
        (left if wanted[request.lanes].any() else chosen).append(request)
        wanted[request.lanes] = True
    return chosen, left


@lru_cache(maxsize=4096)
def cut(count: int, sizes: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """(begin, end, padded size) of the pieces of a batch of `count`: full largest ones, then the smallest that fits.

    `sizes` ascend.
    """
    pieces = [(begin, begin + sizes[-1], sizes[-1]) for begin in range(0, count - sizes[-1], sizes[-1])]
    begin = pieces[-1][1] if pieces else 0
    if count > begin:
        pieces.append((begin, count, next(size for size in sizes if size >= count - begin)))
    return tuple(pieces)


def padded(lanes: Array, where: Span, size: int, filler: int) -> Span:
    """The lanes of a span, as they are when there are `size` of them, else with `filler` up to that; only to read."""
    if len(lanes) == size:
        return where
    return _neighbours(where.start, where.stop, size, filler) if isinstance(where, slice) else pad(lanes, size, filler)


def pad(lanes: Array, size: int, filler: int) -> Array:
    """Lanes, then `filler` up to `size`."""
    if len(lanes) == size:
        return lanes
    padded = np.full(size, filler, dtype=np.int64)
    padded[: len(lanes)] = lanes
    return padded


@lru_cache(maxsize=4096)
def _neighbours(first: int, end: int, size: int, filler: int) -> Array:
    return _for_all(pad(np.arange(first, end), size, filler))


@lru_cache(maxsize=4096)
def repeated(count: int, size: int) -> Array:
    """Places in an array of `count` rows that make `size` of them: each once, then the first again and again."""
    return _for_all(pad(np.arange(count), size, 0))


def _for_all(array: Array) -> Array:
    array.flags.writeable = False
    return array


def alike(groups: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Of groups of batch sizes that round alike, the one to use: the most sizes, then the larger ones."""
    best = max(groups, key=lambda group: (len(group), max(group)))
    return tuple(sorted(best))
