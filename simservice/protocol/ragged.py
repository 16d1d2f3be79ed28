"""Values without a fixed shape (Text, Sequence, Graph, OneOf): one lane's leaves and lengths, depth first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.errors import InvalidInput
from simservice.types import Array, Leaf, leaves_of

Space = gym.Space[Any]
WriteArray = Callable[[Leaf, Any, tuple[int, ...]], bytes]
ReadArray = Callable[[Leaf, bytes, tuple[int, ...]], Array]

NO_EDGES = -1
"""The edge count of a graph whose `edges` and `edge_links` are None."""

MAX_LENGTH = 2**24
"""Elements of one open-ended value; elements without bytes would otherwise cost a hostile sender nothing."""

_LINK = Leaf("edge_links", (2,), np.dtype(np.int32), spaces.Box(0, 2**31 - 1, (2,), np.int32))


@dataclass
class Row:
    """What one lane's value takes on the wire; reading takes from the front."""

    leaves: deque[bytes]
    lengths: deque[int]

    def take_leaf(self, field: str) -> bytes:
        """The next leaf."""
        if not self.leaves:
            raise InvalidInput(field, "a leaf is missing")
        return self.leaves.popleft()

    def take_length(self, field: str, least: int = 0) -> int:
        """The next length, at least `least`."""
        if not self.lengths:
            raise InvalidInput(field, "a length is missing")
        length = self.lengths.popleft()
        if not least <= length <= MAX_LENGTH:
            raise InvalidInput(field, f"{length} is no valid length")
        return length


def is_ragged(space: Space) -> bool:
    """True where some value inside has no fixed shape."""
    if isinstance(space, spaces.Dict):
        return any(is_ragged(child) for child in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return any(is_ragged(child) for child in space.spaces)
    return isinstance(space, spaces.Text | spaces.Sequence | spaces.Graph | spaces.OneOf)


# ---- batches, formed as Gymnasium's vector environments form them ---------------------------------------------------


def lane_of(space: Space, batch: Any, lane: int, field: str) -> Any:
    """One lane's value of a batch: Dict and Tuple hold batches, arrays a lane axis, all else is a tuple by lane."""
    try:
        if isinstance(space, spaces.Dict):
            return {k: lane_of(child, batch[k], lane, f"{field}/{k}") for k, child in space.spaces.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(lane_of(child, batch[i], lane, f"{field}/{i}") for i, child in enumerate(space.spaces))
        value = batch[lane]
    except (KeyError, IndexError, TypeError) as error:
        raise InvalidInput(field, f"is no batch of {space} with a lane {lane}") from error
    return value if is_ragged(space) or isinstance(space, spaces.Discrete) else np.asarray(value)


def stack(space: Space, values: Sequence[Any]) -> Any:
    """The inverse of lane_of over all lanes."""
    if isinstance(space, spaces.Dict):
        return {key: stack(child, [value[key] for value in values]) for key, child in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack(child, [value[i] for value in values]) for i, child in enumerate(space.spaces))
    if is_ragged(space):
        return tuple(values)
    (leaf,) = leaves_of(space, "element")
    batch = np.zeros((len(values), *leaf.shape), leaf.dtype)
    for i, value in enumerate(values):
        batch[i] = value
    return batch


def _batch_length(space: Space, batch: Any, field: str) -> int:
    """How many values a batch holds; a space without any leaf cannot tell."""
    if isinstance(space, spaces.Dict) and space.spaces:
        key, child = next(iter(space.spaces.items()))
        return _batch_length(child, batch[key], field)
    if isinstance(space, spaces.Tuple) and space.spaces:
        return _batch_length(space.spaces[0], batch[0], field)
    if isinstance(space, spaces.Dict | spaces.Tuple):
        raise InvalidInput(field, f"a stacked sequence of {space} has no length")
    return len(batch)


# ---- one value --------------------------------------------------------------------------------------------------


def write(space: Space, value: Any, row: Row, field: str, write_array: WriteArray) -> None:
    """Appends a value to `row`."""
    try:
        _write(space, value, row, field, write_array)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InvalidInput(field, f"{value!r:.80} is no value of {space}") from error


def _write(space: Space, value: Any, row: Row, field: str, write_array: WriteArray) -> None:
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or set(value) != set(space.spaces):
            raise InvalidInput(field, f"a mapping with the keys {', '.join(map(repr, space.spaces))} is expected")
        for key, child in space.spaces.items():
            write(child, value[key], row, f"{field}/{key}", write_array)
    elif isinstance(space, spaces.Tuple):
        if len(value) != len(space.spaces):
            raise InvalidInput(field, f"a tuple of {len(space.spaces)} is expected")
        for i, child in enumerate(space.spaces):
            write(child, value[i], row, f"{field}/{i}", write_array)
    elif isinstance(space, spaces.Text):
        if not space.contains(value):
            raise InvalidInput(field, f"{value!r:.80} is no text of {space}")
        row.leaves.append(value.encode())
        row.lengths.append(len(row.leaves[-1]))
    elif isinstance(space, spaces.Sequence):
        _write_sequence(space, value, row, field, write_array)
    elif isinstance(space, spaces.Graph):
        _write_graph(space, value, row, field, write_array)
    elif isinstance(space, spaces.OneOf):
        index = int(value[0])
        if not 0 <= index < len(space.spaces) or len(value) != 2:
            raise InvalidInput(field, f"{index} is no index of {space}")
        row.lengths.append(index)
        write(space.spaces[index], value[1], row, f"{field}/{index}", write_array)
    else:
        (leaf,) = leaves_of(space, field)
        row.leaves.append(write_array(leaf, value, ()))


def _write_sequence(space: spaces.Sequence, value: Any, row: Row, field: str, write_array: WriteArray) -> None:
    element: Space = space.feature_space
    if space.stack:
        count = _batch_length(element, value, field)
        items: Sequence[Any] = [lane_of(element, value, i, field) for i in range(count)]
    else:
        items = value
    row.lengths.append(len(items))
    for i, item in enumerate(items):
        write(element, item, row, f"{field}/{i}", write_array)


def _write_graph(space: spaces.Graph, value: Any, row: Row, field: str, write_array: WriteArray) -> None:
    (node,) = leaves_of(space.node_space, f"{field}/nodes")
    row.lengths.append(len(value.nodes))
    row.leaves.append(write_array(node, value.nodes, (len(value.nodes),)))
    if value.edges is None:
        row.lengths.append(NO_EDGES)
        return
    if space.edge_space is None:
        raise InvalidInput(f"{field}/edges", "this graph space has no edges")
    (edge,) = leaves_of(space.edge_space, f"{field}/edges")
    count = len(value.edges)
    row.lengths.append(count)
    row.leaves.append(write_array(edge, value.edges, (count,)))
    row.leaves.append(write_array(_LINK, value.edge_links, (count,)))


def read(space: Space, row: Row, field: str, read_array: ReadArray, check: bool) -> Any:
    """Takes a value from the front of `row`; arrays are checked by `read_array`, the rest here where `check`."""
    if isinstance(space, spaces.Dict):
        return {k: read(child, row, f"{field}/{k}", read_array, check) for k, child in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(read(child, row, f"{field}/{i}", read_array, check) for i, child in enumerate(space.spaces))
    if isinstance(space, spaces.Text):
        return _read_text(space, row, field, check)
    if isinstance(space, spaces.Sequence):
        element: Space = space.feature_space
        count = row.take_length(field)
        items = [read(element, row, f"{field}/{i}", read_array, check) for i in range(count)]
        return stack(element, items) if space.stack else tuple(items)
    if isinstance(space, spaces.Graph):
        return _read_graph(space, row, field, read_array)
    if isinstance(space, spaces.OneOf):
        index = row.take_length(field)
        if index >= len(space.spaces):
            raise InvalidInput(field, f"{index} is no index of {space}")
        return np.int64(index), read(space.spaces[index], row, f"{field}/{index}", read_array, check)
    (leaf,) = leaves_of(space, field)
    array = read_array(leaf, row.take_leaf(field), ())
    return array[()] if isinstance(space, spaces.Discrete) else array


def _read_text(space: spaces.Text, row: Row, field: str, check: bool) -> str:
    raw, length = row.take_leaf(field), row.take_length(field)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(field, f"is no UTF-8 text: {error}") from error
    if len(raw) != length:
        raise InvalidInput(field, f"{len(raw)} bytes were sent, {length} were announced")
    if check and not space.contains(text):
        raise InvalidInput(field, f"{text!r:.80} is no text of {space}")
    return text


def _read_graph(space: spaces.Graph, row: Row, field: str, read_array: ReadArray) -> spaces.GraphInstance:
    (node,) = leaves_of(space.node_space, f"{field}/nodes")
    count = row.take_length(field)
    nodes = read_array(node, row.take_leaf(f"{field}/nodes"), (count,))
    edge_count = row.take_length(field, least=NO_EDGES)
    if edge_count == NO_EDGES:
        return spaces.GraphInstance(nodes, None, None)
    if space.edge_space is None:
        raise InvalidInput(f"{field}/edges", "this graph space has no edges")
    (edge,) = leaves_of(space.edge_space, f"{field}/edges")
    edges = read_array(edge, row.take_leaf(f"{field}/edges"), (edge_count,))
    links = read_array(_LINK, row.take_leaf(f"{field}/edge_links"), (edge_count,))
    if links.size and int(links.max()) >= count:
        raise InvalidInput(f"{field}/edge_links", f"an edge ends at node {int(links.max())} of {count}")
    return spaces.GraphInstance(nodes, edges, links)
