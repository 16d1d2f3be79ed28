"""Gymnasium spaces to and from the Space message, exactly: class, bounds, dtypes, start values, key order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.errors import InvalidInput
from simservice.protocol.v1 import world_pb2 as pb
from simservice.types import Array

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
}
"""What travels. Left out on purpose: long double, whose bytes differ between machines, and everything with objects."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}  # numpy works a dtype's name out anew each time

MAX_ELEMENTS = 2**27
"""No space of a sane world holds more numbers; a hostile message must not make its receiver allocate more."""

Space = gym.Space[Any]


def dtype_name(dtype: Any, field: str) -> str:
    """The wire's name of a dtype; InvalidInput for those that do not travel, big-endian ones among them."""
    found = np.dtype(dtype)
    name = _NAMES.get(found)
    if name is None:
        raise InvalidInput(field, f"dtype {found.str} cannot travel; choose one of: {', '.join(DTYPES)}")
    return name


def dtype_of(name: str, field: str) -> np.dtype[Any]:
    """The dtype with that name."""
    if name not in DTYPES:
        raise InvalidInput(field, f"dtype {name!r} is unknown; there are: {', '.join(DTYPES)}")
    return DTYPES[name]


def encode_space(space: Space, field: str = "space") -> pb.Space:
    """The space as a message; `field` names it in errors."""
    for kind, encode in _ENCODERS.items():
        if isinstance(space, kind):
            message: pb.Space = encode(space, field)
            return message
    raise InvalidInput(field, f"{type(space).__name__} is not a Gymnasium space that can travel")


def decode_space(message: pb.Space, field: str = "space") -> Space:
    """The space that was sent; InvalidInput with the path of what breaks a rule."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise InvalidInput(field, "names no kind of space")
    try:
        space: Space = _DECODERS[kind](getattr(message, kind), field)
    except (AssertionError, ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(field, f"is no valid {kind} space: {error}") from error
    return space


# ---- raw arrays -------------------------------------------------------------------------------------------------


def _raw(array: Array, dtype: Any) -> bytes:
    return np.ascontiguousarray(array).astype(np.dtype(dtype).newbyteorder("<"), copy=False).tobytes()


def _raw_or_one(array: Array, dtype: Any) -> bytes:
    """The elements, or the first alone where all are the same."""
    raw = _raw(array, dtype)
    one = raw[: np.dtype(dtype).itemsize]
    return one if raw == one * array.size and array.size else raw


def _array(raw: bytes, dtype: Any, shape: tuple[int, ...], field: str) -> Array:
    """Elements, or one that stands for all."""
    size = math.prod(shape)
    found = np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")) if raw else np.zeros(0, dtype)
    if found.size == 1 and size != 1:
        found = np.full(size, found[0])
    if found.size != size:
        raise InvalidInput(field, f"{len(raw)} bytes do not fill shape {shape} of {np.dtype(dtype).name}")
    return found.astype(dtype).reshape(shape)


def _shape(dimensions: Any, field: str) -> tuple[int, ...]:
    shape = tuple(int(n) for n in dimensions)
    if any(n < 0 for n in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise InvalidInput(field, f"shape {shape} is negative or holds more than {MAX_ELEMENTS} elements")
    return shape


# ---- space -> message -------------------------------------------------------------------------------------------


def _encode_box(space: spaces.Box, field: str) -> pb.Space:
    box = pb.Space.Box(
        dtype=dtype_name(space.dtype, field),
        shape=space.shape,
        low=_raw_or_one(space.low, space.dtype),
        high=_raw_or_one(space.high, space.dtype),
    )
    if np.dtype(space.dtype).kind == "i":
        if not space.bounded_below.all():
            box.unbounded_below = _raw_or_one(~space.bounded_below, bool)
        if not space.bounded_above.all():
            box.unbounded_above = _raw_or_one(~space.bounded_above, bool)
    return pb.Space(box=box)


def _encode_discrete(space: spaces.Discrete[Any], field: str) -> pb.Space:
    n, start = (int(np.asarray(number).astype(np.int64)) for number in (space.n, space.start))
    return pb.Space(discrete=pb.Space.Discrete(n=n, start=start, dtype=dtype_name(space.dtype, field)))


def _encode_multi_discrete(space: spaces.MultiDiscrete, field: str) -> pb.Space:
    return pb.Space(
        multi_discrete=pb.Space.MultiDiscrete(
            dtype=dtype_name(space.dtype, field),
            shape=space.shape,
            nvec=_raw(space.nvec.astype(np.int64), np.int64),
            start=_raw(space.start.astype(np.int64), np.int64),
        )
    )


def _encode_multi_binary(space: spaces.MultiBinary, field: str) -> pb.Space:
    return pb.Space(multi_binary=pb.Space.MultiBinary(shape=space.shape, flat=isinstance(space.n, int)))


def _encode_text(space: spaces.Text, field: str) -> pb.Space:
    if any(len(character) != 1 or "\ud800" <= character <= "\udfff" for character in space.character_list):
        raise InvalidInput(field, "a Text space's charset must hold single Unicode characters, no surrogates")
    return pb.Space(
        text=pb.Space.Text(
            min_length=space.min_length, max_length=space.max_length, characters="".join(space.character_list)
        )
    )


def _encode_dict(space: spaces.Dict, field: str) -> pb.Space:
    message = pb.Space(dict=pb.Space.Dict())
    for key, child in space.spaces.items():
        if not isinstance(key, str):
            raise InvalidInput(field, f"the key {key!r} of a Dict space is not a string")
        message.dict.entries.add(key=key, space=encode_space(child, f"{field}/{key}"))
    return message


def _children(children: tuple[Space, ...], field: str) -> list[pb.Space]:
    return [encode_space(child, f"{field}/{i}") for i, child in enumerate(children)]


def _encode_tuple(space: spaces.Tuple, field: str) -> pb.Space:
    return pb.Space(tuple=pb.Space.Tuple(spaces=_children(space.spaces, field)))


def _encode_sequence(space: spaces.Sequence, field: str) -> pb.Space:
    element = encode_space(space.feature_space, f"{field}/element")
    return pb.Space(sequence=pb.Space.Sequence(element=element, stacked=space.stack))


def _encode_graph(space: spaces.Graph, field: str) -> pb.Space:
    edge = None if space.edge_space is None else encode_space(space.edge_space, f"{field}/edge")
    return pb.Space(graph=pb.Space.Graph(node=encode_space(space.node_space, f"{field}/node"), edge=edge))


def _encode_one_of(space: spaces.OneOf, field: str) -> pb.Space:
    return pb.Space(one_of=pb.Space.OneOf(spaces=_children(space.spaces, field)))


_ENCODERS: dict[type[Space], Callable[[Any, str], pb.Space]] = {
    spaces.Box: _encode_box,
    spaces.Discrete: _encode_discrete,
    spaces.MultiDiscrete: _encode_multi_discrete,
    spaces.MultiBinary: _encode_multi_binary,
    spaces.Text: _encode_text,
    spaces.Dict: _encode_dict,
    spaces.Tuple: _encode_tuple,
    spaces.Sequence: _encode_sequence,
    spaces.Graph: _encode_graph,
    spaces.OneOf: _encode_one_of,
}


# ---- message -> space -------------------------------------------------------------------------------------------


def _decode_box(box: pb.Space.Box, field: str) -> Space:
    dtype, shape = dtype_of(box.dtype, field), _shape(box.shape, field)
    low = _array(box.low, dtype, shape, f"{field}.low")
    high = _array(box.high, dtype, shape, f"{field}.high")
    space = spaces.Box(low, high, shape, dtype.type)
    if dtype.kind == "i" and box.unbounded_below:
        space.bounded_below = ~_array(box.unbounded_below, bool, shape, f"{field}.unbounded_below")
    if dtype.kind == "i" and box.unbounded_above:
        space.bounded_above = ~_array(box.unbounded_above, bool, shape, f"{field}.unbounded_above")
    return space


def _decode_discrete(discrete: pb.Space.Discrete, field: str) -> Space:
    dtype = dtype_of(discrete.dtype, field)
    bits = 2**64 - 1 if dtype == np.uint64 else -1
    return spaces.Discrete(discrete.n & bits, start=discrete.start & bits, dtype=dtype.type)


def _decode_multi_discrete(multi: pb.Space.MultiDiscrete, field: str) -> Space:
    dtype, shape = dtype_of(multi.dtype, field), _shape(multi.shape, field)
    nvec = _array(multi.nvec, np.int64, shape, f"{field}.nvec").astype(dtype)
    start = _array(multi.start, np.int64, shape, f"{field}.start").astype(dtype)
    return spaces.MultiDiscrete(nvec, dtype=dtype.type, start=start)


def _decode_multi_binary(multi: pb.Space.MultiBinary, field: str) -> Space:
    shape = _shape(multi.shape, field)
    if multi.flat and len(shape) != 1:
        raise InvalidInput(field, f"a flat MultiBinary has one dimension, found shape {shape}")
    return spaces.MultiBinary(shape[0] if multi.flat else shape)


def _decode_text(text: pb.Space.Text, field: str) -> Space:
    return spaces.Text(text.max_length, min_length=text.min_length, charset=text.characters)


def _decode_dict(message: pb.Space.Dict, field: str) -> Space:
    entries = [(entry.key, decode_space(entry.space, f"{field}/{entry.key}")) for entry in message.entries]
    if len({key for key, _ in entries}) != len(entries):
        raise InvalidInput(field, "a Dict space holds a key twice")
    return spaces.Dict(entries)


def _spaces(messages: Any, field: str) -> list[Space]:
    return [decode_space(message, f"{field}/{i}") for i, message in enumerate(messages)]


def _decode_sequence(sequence: pb.Space.Sequence, field: str) -> Space:
    return spaces.Sequence(decode_space(sequence.element, f"{field}/element"), stack=sequence.stacked)


def _decode_graph(graph: pb.Space.Graph, field: str) -> Space:
    edge: Any = decode_space(graph.edge, f"{field}/edge") if graph.HasField("edge") else None
    node: Any = decode_space(graph.node, f"{field}/node")
    return spaces.Graph(node, edge)


_DECODERS: dict[str, Callable[[Any, str], Space]] = {
    "box": _decode_box,
    "discrete": _decode_discrete,
    "multi_discrete": _decode_multi_discrete,
    "multi_binary": _decode_multi_binary,
    "text": _decode_text,
    "dict": _decode_dict,
    "tuple": lambda message, field: spaces.Tuple(_spaces(message.spaces, field)),
    "sequence": _decode_sequence,
    "graph": _decode_graph,
    "one_of": lambda message, field: spaces.OneOf(_spaces(message.spaces, field)),
}
