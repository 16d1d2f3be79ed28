"""Values of spaces to and from raw little-endian arrays: one leaf per array, all lanes in it."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.errors import InvalidInput
from simservice.protocol import ragged
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import SIMPLE, Array, Leaf, Leaves, from_leaves, leaves_of, to_leaves

LITTLE = sys.byteorder == "little"
"""The wire is little-endian; nearly every machine is, and then bytes are taken as they are."""

LARGE_BYTES = 2**14  # of an array, which is not copied twice


def encode_leaves(
    spec: tuple[Leaf, ...], leaves: Mapping[str, Array], lead: tuple[int, ...] | None = None
) -> pb.Values:
    """Fixed-shape leaves as a message.

    `lead` are the axes before each leaf's own shape, e.g. (lanes,); None takes them as found. A dtype is changed only
    where no value changes kind (float64 to float32, int64 to int8 if it fits). InvalidInput names the leaf.
    """
    return pb.Values(leaves=[conform(leaf, leaves[leaf.path], lead).tobytes() for leaf in spec])


def conform(leaf: Leaf, value: Any, lead: tuple[int, ...] | None) -> Array:
    """The value as a little-endian array of the leaf's dtype and of shape (*lead, *leaf.shape)."""
    array = value if isinstance(value, np.ndarray) else _as_array(leaf, value)
    expected = leaf.shape if lead is None else lead + leaf.shape
    found = array.shape[array.ndim - len(leaf.shape) :] if lead is None else array.shape
    if found != expected:
        raise InvalidInput(leaf.path, f"shape {array.shape} was given, {expected} is expected")
    if array.dtype is not leaf.dtype and array.dtype != leaf.dtype:
        array = _cast(leaf, array)
    return array if LITTLE else array.astype(leaf.dtype.newbyteorder("<"))


def raw_bytes(array: Array) -> bytes | memoryview:
    """The array's bytes; where they are many, as they lie, to be copied once only."""
    if array.nbytes < LARGE_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def decode_leaves(spec: tuple[Leaf, ...], message: pb.Values, lead: tuple[int, ...], *, check: bool = True) -> Leaves:
    """Fixed-shape leaves from a message, as writable arrays of shape (*lead, *leaf.shape).

    Sizes are always checked; with `check` also that every value is finite and inside its space.
    """
    if len(message.leaves) != len(spec) or message.ragged:
        raise InvalidInput(_root(spec), f"{len(message.leaves)} leaves were sent, {len(spec)} are expected")
    leaves = {leaf.path: _decode_leaf(leaf, raw, lead) for leaf, raw in zip(spec, message.leaves, strict=True)}
    if check:
        check_leaves(spec, leaves)
    return leaves


def check_leaves(spec: tuple[Leaf, ...], leaves: Mapping[str, Array]) -> None:
    """Refuses values that are not finite or lie outside their space, by leaf path; axes before the leaf's are free."""
    for leaf in spec:
        array = leaves[leaf.path]
        if array.size and not _inside(leaf.space, array):
            _check_finite(leaf, array)
            raise InvalidInput(leaf.path, f"{_first_outside(leaf, array)} lies outside {leaf.space}")
        _check_finite(leaf, array)


def check_finite(spec: tuple[Leaf, ...], leaves: Mapping[str, Array]) -> None:
    """Refuses NaN and infinities, by leaf path."""
    for leaf in spec:
        _check_finite(leaf, leaves[leaf.path])


def encode_values(space: gym.Space[Any], value: Any, lanes: int | None, *, field: str = "value") -> pb.Values:
    """One value (`lanes` None) or a batch as Gymnasium's vector environments form it, of any of the ten spaces."""
    if ragged.is_ragged(space):
        rows = [value] if lanes is None else [ragged.lane_of(space, value, i, field) for i in range(lanes)]
        return pb.Values(ragged=[_encode_row(space, row, field) for row in rows])
    check_structure(space, value, field)
    lead = () if lanes is None else (lanes,)
    return encode_leaves(leaves_of(space, field), to_leaves(space, value, field), lead)


def decode_values(
    space: gym.Space[Any], message: pb.Values, *, lanes: int | None, field: str, check: bool = True
) -> Any:
    """The inverse of encode_values: types, dtypes and values as they were sent.

    Sizes are always checked, with `check` also that values are finite and inside the space: InvalidInput with the path.
    """
    if not ragged.is_ragged(space):
        spec = leaves_of(space, field)
        leaves = decode_leaves(spec, message, () if lanes is None else (lanes,), check=check)
        if lanes is None:  # Gymnasium's scalars: a Discrete sample is a numpy integer, no array
            leaves = {
                leaf.path: leaves[leaf.path][()] if isinstance(leaf.space, spaces.Discrete) else leaves[leaf.path]
                for leaf in spec
            }
        return from_leaves(space, leaves, field)
    expected = 1 if lanes is None else lanes
    if len(message.ragged) != expected or message.leaves:
        raise InvalidInput(field, f"{len(message.ragged)} ragged values were sent, {expected} are expected")
    rows = [_decode_row(space, row, field, check) for row in message.ragged]
    return rows[0] if lanes is None else ragged.stack(space, rows)


# ---- one leaf ---------------------------------------------------------------------------------------------------


def _as_array(leaf: Leaf, value: Any) -> Array:
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InvalidInput(leaf.path, f"is no array: {error}") from error


def _cast(leaf: Leaf, array: Array) -> Array:
    """Changes the dtype where no value changes its meaning."""
    if not np.can_cast(array.dtype, leaf.dtype, "same_kind") and not (
        array.dtype.kind in "iu" and leaf.dtype.kind in "iu"
    ):
        raise InvalidInput(leaf.path, f"dtype {array.dtype} was given, {leaf.dtype} is expected")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(leaf.dtype)
    if leaf.dtype.kind in "iu" and not np.array_equal(cast, array):
        raise InvalidInput(leaf.path, f"a value does not fit {leaf.dtype}")
    return cast


def _decode_leaf(leaf: Leaf, raw: bytes, lead: tuple[int, ...]) -> Array:
    shape = lead + leaf.shape
    expected = math.prod(shape) * leaf.dtype.itemsize
    if len(raw) != expected:
        raise InvalidInput(leaf.path, f"{len(raw)} bytes were sent, shape {shape} of {leaf.dtype} has {expected}")
    if not expected:
        return np.zeros(shape, leaf.dtype)
    if leaf.dtype.kind == "b":
        return decode_mask(raw, math.prod(shape), leaf.path).reshape(shape)
    array = np.frombuffer(raw, leaf.dtype).reshape(shape).copy()
    return array if LITTLE else array.byteswap(inplace=True)


def decode_mask(raw: bytes, count: int, field: str) -> Array:
    """A writable bool array of `count` entries from one byte each, 0 or 1."""
    if len(raw) != count:
        raise InvalidInput(field, f"{len(raw)} bytes were sent, {count} are expected")
    if raw.translate(None, b"\x00\x01"):
        raise InvalidInput(field, "a truth value is one byte, 0 or 1")
    return np.frombuffer(raw, np.bool_).copy() if raw else np.zeros(0, np.bool_)


def _inside(space: gym.Space[Any], array: Array) -> bool:
    if isinstance(space, spaces.Box):
        return bool((array >= space.low).all() and (array <= space.high).all())
    if isinstance(space, spaces.Discrete):
        first = int(space.start)
        return first <= int(array.min()) and int(array.max()) < first + int(space.n)
    if isinstance(space, spaces.MultiDiscrete):  # n - 1 before the sum, so that no dtype overflows
        return bool((array >= space.start).all() and (array <= space.start + (space.nvec - 1)).all())
    return bool(((array == 0) | (array == 1)).all())


def _first_outside(leaf: Leaf, array: Array) -> str:
    rows = array.reshape((-1, *leaf.shape))
    row = next(i for i in range(len(rows)) if not _inside(leaf.space, rows[i : i + 1]))
    where = f" (lane {row})" if array.ndim > len(leaf.shape) else ""
    return f"{np.array2string(rows[row], threshold=8, edgeitems=3)}{where}"


def _check_finite(leaf: Leaf, array: Array) -> None:
    if leaf.dtype.kind == "f" and not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidInput(leaf.path, f"holds {array[index]} at index {index}; only finite numbers are taken")


def _root(spec: tuple[Leaf, ...]) -> str:
    return spec[0].path.partition("/")[0] if spec else "value"


def check_structure(space: gym.Space[Any], value: Any, field: str) -> None:
    """A Dict takes a mapping with its keys, a Tuple a tuple or list of its length."""
    if type(space) in SIMPLE:
        return
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or set(value) != set(space.spaces):
            raise InvalidInput(field, f"a mapping with the keys {', '.join(map(repr, space.spaces))} is expected")
        for key, child in space.spaces.items():
            check_structure(child, value[key], f"{field}/{key}")
    elif isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            raise InvalidInput(field, f"a tuple of {len(space.spaces)} is expected")
        for i, child in enumerate(space.spaces):
            check_structure(child, value[i], f"{field}/{i}")


# ---- one lane of a ragged space ---------------------------------------------------------------------------------


def _encode_row(space: gym.Space[Any], value: Any, field: str) -> pb.Values.Ragged:
    row = ragged.Row(deque(), deque())
    ragged.write(space, value, row, field, _write_array)
    return pb.Values.Ragged(leaves=row.leaves, lengths=row.lengths)


def _decode_row(space: gym.Space[Any], message: pb.Values.Ragged, field: str, check: bool) -> Any:
    def read_array(leaf: Leaf, raw: bytes, lead: tuple[int, ...]) -> Array:
        array = _decode_leaf(leaf, raw, lead)
        if check:
            check_leaves((leaf,), {leaf.path: array})
        return array

    row = ragged.Row(deque(message.leaves), deque(message.lengths))
    value = ragged.read(space, row, field, read_array, check)
    if row.leaves or row.lengths:
        raise InvalidInput(field, "more was sent than the space holds")
    return value


def _write_array(leaf: Leaf, value: Any, lead: tuple[int, ...]) -> bytes:
    return conform(leaf, value, lead).tobytes()
