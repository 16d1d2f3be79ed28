"""Reads a step's actions: what follows from the action space alone is made once, not once a step.

Only says yes quickly; whatever is wrong with a message, messages.py finds again and puts into words.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from gymnasium import spaces

from simservice.protocol.messages import decode_step
from simservice.protocol.tensors import LITTLE
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Array, Leaf, Leaves

Check = Callable[[Array], bool]


class StepActions:
    """The actions of the steps in one world; `leaves` are the action's."""

    def __init__(self, leaves: tuple[Leaf, ...]) -> None:
        self._leaves = leaves
        checks = [_check(leaf) for leaf in leaves]
        # Bytes that are taken as they are: neither of another byte order nor truth values, which may be wrong.
        self._plain = LITTLE and None not in checks
        self._readers = [
            (leaf.path, leaf.dtype, leaf.shape, math.prod(leaf.shape) * leaf.dtype.itemsize, check)
            for leaf, check in zip(leaves, checks, strict=True)
            if check is not None
        ]

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
