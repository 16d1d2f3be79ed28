"""Writes and reads a step's reply, array by array: generated code takes three times as long for the same message.

The lengths in a reply follow from its lanes and its infos' names and dtypes, so all bytes between the arrays are made
once for each such kind, and known again where they are read. What is rarer is left to messages.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from simservice.protocol.messages import encode_step_result
from simservice.protocol.spaces import dtype_name
from simservice.protocol.tensors import LITTLE, conform, raw_bytes
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.varints import numbered, varint
from simservice.types import Array, Info, Infos, Leaf, StepResult

SERVER_NS = b"\x40"  # the tag of PlayReply.server_ns: a field may follow the others in bytes of their own
SPLIT_NS = (b"\x80\x01", b"\x88\x01", b"\x90\x01", b"\x98\x01")  # of queue_ns, wait_ns, model_ns and encode_ns
BOOL = np.dtype(np.bool_)
KINDS_KEPT = 256
KINDS_READ = 8  # of replies, that a reader knows at a time

_Kind = tuple[int, tuple[tuple[str, str, tuple[int, ...], bool], ...]]
"""Lanes, and of each info its name, dtype, shape of a lane's value, and whether all lanes have it."""


class StepReplies:
    """The replies to steps in one world; `leaves` are the observation's."""

    def __init__(self, leaves: tuple[Leaf, ...]) -> None:
        self._leaves = leaves
        self._kinds: dict[_Kind, tuple[bytes, ...]] = {}

    def encode(self, sequence: int, result: StepResult) -> bytes:
        """A PlayReply with `stepped`."""
        infos = result.infos
        if not LITTLE or result.final is not None or not self._leaves:
            stepped = encode_step_result(self._leaves, result)
            return pb.PlayReply(sequence=sequence, stepped=stepped).SerializeToString()
        lanes = len(result.reward)
        arrays: list[bytes | memoryview] = [
            raw_bytes(conform(leaf, result.observation[leaf.path], (lanes,))) for leaf in self._leaves
        ]
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
        between = self._kinds.get(kind)
        if between is None:
            between = _between(kind, [len(array) for array in arrays], len(self._leaves), infos)
            if len(self._kinds) < KINDS_KEPT:
                self._kinds[kind] = between
        parts: list[bytes | memoryview] = [numbered(sequence)]
        for pair in zip(between, arrays, strict=True):
            parts += pair
        return b"".join(parts)


class PlainReply(NamedTuple):
    """The reply to a step."""

    result: StepResult
    times: bytes  # a PlayReply of what stands behind it: see times()


class _Part(NamedTuple):
    """An array of a kind of replies."""

    head: bytes  # what stands before it
    size: int  # in bytes
    dtype: np.dtype[Any]
    numbers: int
    shape: tuple[int, ...] | None  # None: it is flat


class _Known(NamedTuple):
    """A kind of replies."""

    parts: tuple[_Part, ...]
    infos: tuple[tuple[str, bool], ...]  # the name, and whether all lanes have it
    everywhere: Array  # (lanes,) True


class StepReplyReader:
    """Reads what StepReplies writes; `leaves` are the observation's. Arrays are fresh, writable, the caller's own."""

    def __init__(self, leaves: tuple[Leaf, ...]) -> None:
        self._leaves = leaves
        self._paths = tuple(leaf.path for leaf in leaves)
        self._known: list[_Known] = []  # the newest first

    def read(self, message: bytes | bytearray, begin: int) -> PlainReply | None:
        """A PlayReply, from behind its sequence on, with `stepped` of a kind that was learned; None: any other one.

        In a bytearray, which is nobody else's, an array that is most of it stays where it lies.
        """
        for known in self._known:
            at = begin
            arrays: list[Array] = []
            for head, size, dtype, count, shape in known.parts:
                if not message.startswith(head, at):
                    break
                at += len(head)
                if dtype is BOOL:
                    raw = message[at : at + size]
                    if len(raw) != size or raw.translate(None, b"\0\1"):
                        return None
                    array = np.frombuffer(raw, BOOL).copy() if raw else np.zeros(0, BOOL)
                elif len(message) < at + size:
                    return None
                elif not count:
                    array = np.zeros(0, dtype)
                else:
                    array = np.frombuffer(message, dtype, count, at)
                    if 2 * size < len(message) or not (array.flags.writeable and array.flags.aligned):
                        array = array.copy()
                arrays.append(array if shape is None else array.reshape(shape))
                at += size
            else:
                rest = bytes(message[at:])
                return PlainReply(self._result(known, arrays), rest) if rest[:1] in (b"", SERVER_NS) else None
        return None

    def learn(self, result: StepResult) -> None:
        """Makes the kind of this result known: the next reply of its kind will be read."""
        lanes = len(result.reward)
        if not LITTLE or result.final is not None or not self._leaves:
            return
        wholes = [(name, bool(info.present.all())) for name, info in result.infos.items()]
        arrays = [result.observation[path] for path in self._paths]
        arrays += [result.reward, result.terminated, result.truncated]
        for name, whole in wholes:
            info = result.infos[name]
            arrays += [info.value] if whole else [info.value, info.present]
        described = [(name, result.infos[name].value, whole) for name, whole in wholes]
        kind: _Kind = (
            lanes,
            tuple((name, value.dtype.str, value.shape[1:], whole) for name, value, whole in described),
        )
        heads = _between(kind, [array.nbytes for array in arrays], len(self._leaves), result.infos)
        parts = [
            _Part(
                head,
                array.nbytes,
                BOOL if array.dtype == BOOL else array.dtype,
                array.size,
                None if array.ndim == 1 else array.shape,
            )
            for head, array in zip(heads, arrays, strict=True)
        ]
        self._known.insert(0, _Known(tuple(parts), tuple(wholes), np.ones(lanes, BOOL)))
        del self._known[KINDS_READ:]

    def _result(self, known: _Known, arrays: list[Array]) -> StepResult:
        count = len(self._paths)
        infos: Infos = {}
        if known.infos:
            left = iter(arrays[count + 3 :])
            for name, whole in known.infos:
                infos[name] = Info(next(left), known.everywhere.copy() if whole else next(left))
        observation = dict(zip(self._paths, arrays, strict=False))
        return StepResult(observation, arrays[count], arrays[count + 1], arrays[count + 2], infos)


def _between(kind: _Kind, sizes: Sequence[int], leaves: int, infos: Infos) -> tuple[bytes, ...]:
    """What stands before each array, of so many bytes, of a reply of this kind, the first so many of them leaves."""
    heads = [b"\x0a" + varint(size) for size in sizes[:leaves]]
    values = sum(map(len, heads)) + sum(sizes[:leaves])
    before = [b"\x0a" + varint(values) + heads[0], *heads[1:]]
    before += [tag + varint(size) for tag, size in zip((b"\x12", b"\x1a", b"\x22"), sizes[leaves:], strict=False)]
    place = leaves + 3
    for name, _, _, whole in kind[1]:
        given = sizes[place : place + (1 if whole else 2)]
        before += _info(name, infos[name].value, given)
        place += len(given)
    stepped = sum(map(len, before)) + sum(sizes)
    before[0] = b"\x22" + varint(stepped) + before[0]
    return tuple(before)


def timed(reply: bytes, server_ns: int, split_ns: Sequence[int] = ()) -> bytes:
    """A PlayReply with the time that it took in the server and, in the order of the fields, where it was spent."""
    return reply + times(server_ns, split_ns)


def times(server_ns: int, split_ns: Sequence[int] = ()) -> bytes:
    """What timed() puts behind a reply."""
    told = SERVER_NS + varint(server_ns)
    for tag, spent in zip(SPLIT_NS, split_ns, strict=False):
        told += tag + varint(spent)
    return told


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
