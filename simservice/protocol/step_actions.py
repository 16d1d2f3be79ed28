"""Writes and reads a step's request: what follows from the action space and the lanes is made once, not once a step.

Only says yes quickly; whatever is wrong with a message, messages.py finds again and puts into words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from simservice.protocol.messages import decode_step
from simservice.protocol.tensors import LITTLE, conform
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.varints import numbered, read_varint, varint
from simservice.types import Array, Leaf, Leaves

Check = Callable[[Array], bool]

TIMEOUT = b"\x60"  # the tag of PlayRequest.timeout_ms


class PlainStep(NamedTuple):
    """A request that is a step and nothing else."""

    action: Leaves  # (lanes, ...) each, all finite and inside the action space
    timeout_ms: int  # 0: not told


class StepRequests:
    """The requests to step one world; `leaves` are the action's."""

    def __init__(self, leaves: tuple[Leaf, ...]) -> None:
        self._leaves = leaves

    def raw(self, action: Leaves, lanes: int) -> tuple[bytes, ...]:
        """One action a lane as bytes, leaf by leaf. Shapes and dtypes are checked, values by the receiver."""
        return tuple([conform(leaf, action[leaf.path], (lanes,)).tobytes() for leaf in self._leaves])

    @staticmethod
    def message(sequence: int, raw: tuple[bytes, ...], timeout_ms: int = 0) -> bytes:
        """A PlayRequest with `step`; timeout_ms 0 is not told."""
        if not raw:
            step = pb.Step(action=pb.Values())
            return pb.PlayRequest(sequence=sequence, step=step, timeout_ms=timeout_ms).SerializeToString()
        parts = [numbered(sequence)]
        for pair in zip(_before(1, tuple(map(len, raw))), raw, strict=True):
            parts += pair
        if timeout_ms:
            parts += (TIMEOUT, varint(timeout_ms))
        return b"".join(parts)


class StepActions:
    """The actions of the steps in one world; `leaves` are the action's."""

    def __init__(self, leaves: tuple[Leaf, ...]) -> None:
        self._leaves = leaves
        checks = [_check(leaf) for leaf in leaves]
        # Bytes that are taken as they are: neither of another byte order nor truth values, which may be wrong.
        self._plain = LITTLE and bool(checks) and None not in checks
        self._readers = [
            (leaf.path, leaf.dtype, leaf.shape, math.prod(leaf.shape) * leaf.dtype.itemsize, check)
            for leaf, check in zip(leaves, checks, strict=True)
            if check is not None
        ]
        self._sizes = tuple(size for _, _, _, size, _ in self._readers)  # bytes a lane

    def read(self, message: bytes, sequence: int, lanes: int) -> PlainStep | None:
        """A PlayRequest as StepRequests writes it; None: it is another one, or not to be taken, decode() says why."""
        begins = numbered(sequence)
        if not self._plain or not message.startswith(begins):
            return None
        before = _before(lanes, self._sizes)
        at = len(begins)
        action: Leaves = {}
        for head, (path, dtype, shape, size, inside) in zip(before, self._readers, strict=True):
            begin = at + len(head)
            end = begin + lanes * size
            if not size or len(message) < end or not message.startswith(head, at):
                return None
            array = np.frombuffer(message, dtype, (end - begin) // dtype.itemsize, begin).copy()
            if shape:
                array = array.reshape(lanes, *shape)
            if not inside(array):
                return None
            action[path] = array
            at = end
        if at == len(message):
            return PlainStep(action, 0)
        timeout_ms, end = read_varint(message, at + 1)
        if not message.startswith(TIMEOUT, at) or end != len(message) or timeout_ms >= 2**32:
            return None
        return PlainStep(action, timeout_ms)

    def decode(self, message: pb.Step, lanes: int) -> Leaves:
        """The actions, (lanes, ...) each, all finite and inside the action space; InvalidInput names the leaf."""
        raws = message.action.leaves
        if not self._plain or len(raws) != len(self._readers) or message.action.ragged:
            return decode_step(self._leaves, message, lanes)
        actions: Leaves = {}
        for (path, dtype, shape, size, inside), raw in zip(self._readers, raws, strict=True):
            if len(raw) != lanes * size or not size:
                return decode_step(self._leaves, message, lanes)
            array = np.frombuffer(raw, dtype).copy()
            if shape:
                array = array.reshape(lanes, *shape)
            if not inside(array):
                return decode_step(self._leaves, message, lanes)
            actions[path] = array
        return actions


@lru_cache(maxsize=1024)
def _before(lanes: int, lane_sizes: tuple[int, ...]) -> tuple[bytes, ...]:
    """What stands before each leaf's bytes, of so many a lane, in a request to step."""
    sizes = [lanes * size for size in lane_sizes]
    leaves = [b"\x0a" + varint(size) for size in sizes]
    values = sum(map(len, leaves)) + sum(sizes)
    action = b"\x0a" + varint(values)
    leaves[0] = b"\x2a" + varint(len(action) + values) + action + leaves[0]
    return tuple(leaves)


def _check(leaf: Leaf) -> Check | None:
    """Whether an array of (lanes, *shape) lies in the leaf's space, in few calls; None: it takes more than that."""
    space = leaf.space
    if isinstance(space, spaces.Discrete) and leaf.dtype == np.int64 and int(space.start) == 0:
        count = int(space.n)  # a negative number, read without its sign, is larger than any count
        return lambda array: bool(np.maximum.reduce(array.view(np.uint64)) < count)
    if isinstance(space, spaces.Box) and leaf.dtype.kind == "f":
        low, high = np.maximum(space.low, np.finfo(leaf.dtype).min), np.minimum(space.high, np.finfo(leaf.dtype).max)
        return lambda array: bool(((array >= low) & (array <= high)).all())  # neither holds for NaN
    return None
