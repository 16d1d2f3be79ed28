"""Writes a step's reply as bytes, array by array: generated code takes three times as long for the same message.

The lengths in a reply follow from its lanes and its infos' names and dtypes, so all bytes between the arrays are made
once for each such kind. What is rarer than an ordinary step is left to messages.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simservice.protocol.messages import encode_step_result
from simservice.protocol.spaces import dtype_name
from simservice.protocol.tensors import LITTLE, conform
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Array, Info, Leaf, StepResult

SERVER_NS = b"\x40"  # the tag of PlayReply.server_ns: a field may follow the others in bytes of their own
SPLIT_NS = (b"\x80\x01", b"\x88\x01", b"\x90\x01", b"\x98\x01")  # of queue_ns, wait_ns, model_ns and encode_ns
KINDS_KEPT = 256

_Kind = tuple[int, tuple[tuple[str, str, tuple[int, ...], bool], ...]]
"""Lanes, and of each info its name, dtype, shape of a lane's value, and whether all lanes have it."""


class StepReplies:
    """The replies to steps in one world; `leaves` are the observation's."""

    def __init__(self, leaves: tuple[Leaf, ...]) -> None:
        self._leaves = leaves
        self._between: dict[_Kind, tuple[bytes, ...]] = {}

    def encode(self, sequence: int, result: StepResult) -> bytes:
        """A PlayReply with `stepped`."""
        infos = result.infos
        if not LITTLE or result.final is not None:
            stepped = encode_step_result(self._leaves, result)
            return pb.PlayReply(sequence=sequence, stepped=stepped).SerializeToString()
        lanes = len(result.reward)
        arrays = [conform(leaf, result.observation[leaf.path], (lanes,)).tobytes() for leaf in self._leaves]
        arrays += (
            result.reward.astype(np.float64, copy=False).tobytes(),
            result.terminated.tobytes(),
            result.truncated.tobytes(),
        )
        kind: _Kind = (lanes, ())
        if infos:
            described = []
            for name, info in infos.items():
                value, present = info.value, info.present.tobytes()
                whole = 0 not in present
                arrays.append(value.tobytes())
                if not whole:
                    arrays.append(present)
                described.append((name, value.dtype.str, value.shape[1:], whole))
            kind = (lanes, tuple(described))
        between = self._between.get(kind)
        if between is None:
            between = self._frame(kind, [len(array) for array in arrays], infos)
        parts = [b"\x08" + varint(sequence)]
        for pair in zip(between, arrays, strict=True):
            parts += pair
        return b"".join(parts)

    def _frame(self, kind: _Kind, sizes: Sequence[int], infos: dict[str, Info]) -> tuple[bytes, ...]:
        """What stands before each array of a reply of this kind."""
        count = len(self._leaves)
        leaves = [b"\x0a" + varint(size) for size in sizes[:count]]
        values = sum(map(len, leaves)) + sum(sizes[:count])
        before = [b"\x0a" + varint(values) + leaves[0], *leaves[1:]]
        before += [tag + varint(size) for tag, size in zip((b"\x12", b"\x1a", b"\x22"), sizes[count:], strict=False)]
        place = count + 3
        for name, _, _, whole in kind[1]:
            given = sizes[place : place + (1 if whole else 2)]
            before += _info(name, infos[name].value, given)
            place += len(given)
        stepped = sum(map(len, before)) + sum(sizes)
        before[0] = b"\x22" + varint(stepped) + before[0]
        if len(self._between) < KINDS_KEPT:
            self._between[kind] = tuple(before)
        return tuple(before)


def timed(reply: bytes, server_ns: int, split_ns: Sequence[int] = ()) -> bytes:
    """A PlayReply with the time that it took in the server and, in the order of the fields, where it was spent."""
    parts = [reply, SERVER_NS, varint(server_ns)]
    for tag, spent in zip(SPLIT_NS, split_ns, strict=False):
        parts += (tag, varint(spent))
    return b"".join(parts)


def varint(number: int) -> bytes:
    """A whole number, not negative, as the wire has it: seven bits a byte, the lowest first."""
    if number < 128:
        return bytes((number,))
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _info(name: str, value: Array, sizes: Sequence[int]) -> list[bytes]:
    """What stands before an info's value and, with two sizes, before its mask."""
    dtype = dtype_name(value.dtype, f"info/{name}").encode()
    head = b"\x0a" + _sized(name.encode()) + b"\x12" + _sized(dtype)
    if shape := b"".join(map(varint, value.shape[1:])):
        head += b"\x1a" + _sized(shape)
    before = [head + b"\x22" + varint(sizes[0]), *(b"\x2a" + varint(size) for size in sizes[1:])]
    inside = sum(map(len, before)) + sum(sizes)
    before[0] = b"\x2a" + varint(inside) + before[0]
    return before


def _sized(raw: bytes) -> bytes:
    return varint(len(raw)) + raw
