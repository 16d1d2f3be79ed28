"""Weights of a policy as a fragment of an ONNX file: written after the bytes of its graph they make the whole file.

Protocol buffers merge what is concatenated, so a graph that was inspected once gets other weights without being read
again. Knows the wire's four field numbers and no ONNX.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from simservice.errors import InvalidPolicy
from simservice.types import Array

# onnx.proto: ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.dims = 1, .data_type = 2, .name = 8,
# .raw_data = 9; a key is the number * 8 + the wire type (0: varint, 2: length-delimited).
_GRAPH, _INITIALIZER, _DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 0x3A, 0x2A, 0x08, 0x10, 0x42, 0x4A

ELEMENT_TYPES: Mapping[int, np.dtype[Any]] = {
    number: np.dtype(name).newbyteorder("<")
    for number, name in {
        1: "float32",
        2: "uint8",
        3: "int8",
        4: "uint16",
        5: "int16",
        6: "int32",
        7: "int64",
        9: "bool",
        10: "float16",
        11: "float64",
        12: "uint32",
        13: "uint64",
    }.items()
}
"""TensorProto.DataType by number, as far as policies may use it."""

_NUMBERS = {dtype: number for number, dtype in ELEMENT_TYPES.items()}


class WeightSpec(NamedTuple):
    """One weight of a graph."""

    name: str
    dtype: str  # numpy's name
    shape: tuple[int, ...]


def encode_weights(arrays: Iterable[tuple[WeightSpec, bytes]]) -> bytes:
    """The fragment: every weight's elements as raw little-endian bytes in C order."""
    return _field(_GRAPH, b"".join(_field(_INITIALIZER, _tensor(spec, raw)) for spec, raw in arrays))


def check_weights(specs: Sequence[WeightSpec], found: Mapping[str, tuple[str, Sequence[int], bytes]]) -> bytes:
    """The fragment of (dtype, shape, raw) by name, when they are exactly a graph's weights, and finite."""
    wanted = {spec.name: spec for spec in specs}
    if missing := sorted(wanted.keys() - found.keys()):
        raise InvalidPolicy(
            f"the update lacks {_named(missing)}", "send every weight of the graph, under the names its PutPolicy gave"
        )
    if strange := sorted(found.keys() - wanted.keys()):
        raise InvalidPolicy(f"the graph has no weight {_named(strange)}", f"it has {_named(sorted(wanted))}")
    for spec in specs:
        dtype, shape, raw = found[spec.name]
        if dtype != spec.dtype or tuple(shape) != spec.shape:
            raise InvalidPolicy(
                f"weight {spec.name!r} is {dtype[:20]} {list(shape)[:9]}, and in the graph {spec.dtype} "
                f"{list(spec.shape)}",
                "put a policy of another graph whole",
            )
        check_finite(spec, raw)
    return encode_weights((spec, found[spec.name][2]) for spec in specs)


def check_finite(spec: WeightSpec, raw: bytes) -> None:
    """InvalidPolicy where raw bytes are not the weight's elements, or hold NaN or infinities."""
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    wanted = int(np.prod(spec.shape, dtype=np.int64)) * dtype.itemsize
    if len(raw) != wanted:
        raise InvalidPolicy(
            f"weight {spec.name!r} has {len(raw):,} bytes; {spec.dtype} {list(spec.shape)} has {wanted:,}",
            "send its elements, raw and little-endian in C order",
        )
    array: Array = np.frombuffer(raw, dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        place = int(np.argmin(np.isfinite(array)))
        raise InvalidPolicy(
            f"weight {spec.name!r} holds {array[place]} at element {place}",
            "a policy whose weights are not finite has diverged in training; send an earlier one",
        )


def _tensor(spec: WeightSpec, raw: bytes) -> bytes:
    dims = b"".join(bytes((_DIMS,)) + _varint(size) for size in spec.shape)
    kind = bytes((_DATA_TYPE,)) + _varint(_NUMBERS[np.dtype(spec.dtype).newbyteorder("<")])
    return dims + kind + _field(_NAME, spec.name.encode()) + _field(_RAW_DATA, raw)


def _field(key: int, content: bytes) -> bytes:
    return bytes((key,)) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
