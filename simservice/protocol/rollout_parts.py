"""Writes a part of a rollout, array by array: generated code copies all its bytes three times for the same message.

Whoever writes a part keeps the interpreter from the thread that plays the next one.
"""

from __future__ import annotations

from simservice.protocol.spaces import dtype_name
from simservice.protocol.tensors import conform, raw_bytes
from simservice.protocol.varints import numbered, varint
from simservice.types import Array, Imagined, Leaf, Leaves

Bytes = bytes | memoryview

_VARINT, _SIZED = 0, 2  # wire types


def encode_imagined(sequence: int, part: Imagined, observation: tuple[Leaf, ...], action: tuple[Leaf, ...]) -> bytes:
    """A PlayReply with `imagined`, serialised."""
    shape = part.reward.shape
    body: list[Bytes] = [*_number(1, part.first), *_number(2, shape[0]), *_number(3, part.last)]
    body += _values(4, observation, part.start, shape[1:])
    body += _values(5, observation, part.observation, shape)
    body += _values(6, action, part.action, shape)
    body += _array(7, part.reward, "<f8")
    for field, mask in (
        (8, part.terminated),
        (9, part.truncated),
        (10, part.began),
        (11, part.stopped),
        (12, part.final),
    ):
        body += _array(field, mask, "|b1")
    body += _values(13, observation, part.final_observation, None)
    body += _array(14, part.uncertainty, "<f4")
    body += _array(15, part.distrusted, "|b1")
    body += _array(16, part.world_error, "|b1")
    body += _array(17, part.log_probability, "<f4")
    for name, array in (part.outputs or {}).items():
        body += _message(18, _output(name, array))
    head: list[Bytes] = [numbered(sequence)] if sequence else []
    return b"".join([*head, *_message(14, body)])


def _values(field: int, spec: tuple[Leaf, ...], leaves: Leaves | None, lead: tuple[int, ...] | None) -> list[Bytes]:
    """Values: a leaf of no bytes is there all the same."""
    if leaves is None:
        return []
    inside: list[Bytes] = []
    for leaf in spec:
        raw = raw_bytes(conform(leaf, leaves[leaf.path], lead))
        inside += (_head(1, len(raw)), raw)
    return _message(field, inside)


def _output(name: str, array: Array) -> list[Bytes]:
    """An Info over steps * lanes that all of them have."""
    dtype = dtype_name(array.dtype.newbyteorder("="), f"info/{name}")
    inside = [*_sized(1, name.encode()), *_sized(2, dtype.encode()), *_sized(3, b"".join(map(varint, array.shape[2:])))]
    return inside + _array(4, array, array.dtype.newbyteorder("<").str)


def _array(field: int, array: Array | None, dtype: str) -> list[Bytes]:
    return [] if array is None else _sized(field, raw_bytes(array.astype(dtype, copy=False)))


def _number(field: int, value: int) -> list[Bytes]:
    return [varint(field << 3 | _VARINT), varint(value)] if value else []


def _sized(field: int, raw: Bytes) -> list[Bytes]:
    return [_head(field, len(raw)), raw] if len(raw) else []


def _message(field: int, inside: list[Bytes]) -> list[Bytes]:
    return [_head(field, sum(map(len, inside))), *inside]


def _head(field: int, size: int) -> bytes:
    return varint(field << 3 | _SIZED) + varint(size)
