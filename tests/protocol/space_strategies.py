"""Random nested Gymnasium spaces for property tests."""

import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")

shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@st.composite
def boxes(draw, shapes=shapes):
    dtype = np.dtype(draw(st.sampled_from((*INTEGERS, *FLOATS, "bool"))))
    shape = draw(shapes)
    size = int(np.prod(shape))
    if dtype.kind == "b":
        numbers, infinite = st.booleans(), False
    elif dtype.kind == "f":
        edge = float(np.finfo(dtype).max) / 4
        numbers = st.floats(-edge, edge, width=dtype.itemsize * 8)
        infinite = draw(st.sampled_from(("none", "scalar", "element")))
    else:
        limits = np.iinfo(dtype)  # Gymnasium samples integers through float64, exact up to 2**52 only
        numbers = st.integers(max(limits.min, -(2**52)), min(limits.max, 2**52))
        infinite = draw(st.sampled_from(("none", "scalar"))) if dtype.kind == "i" else "none"
    if infinite == "scalar":
        return spaces.Box(-np.inf, np.inf, shape, dtype.type)
    pairs = draw(st.lists(st.tuples(numbers, numbers), min_size=size, max_size=size))
    low = np.array([min(pair) for pair in pairs], dtype).reshape(shape)
    high = np.array([max(pair) for pair in pairs], dtype).reshape(shape)
    if infinite == "element" and size:
        low.flat[draw(st.integers(0, size - 1))] = -np.inf
        high.flat[draw(st.integers(0, size - 1))] = np.inf
    return spaces.Box(low, high, shape, dtype.type)


@st.composite
def discretes(draw):
    dtype = draw(st.sampled_from(INTEGERS))
    limits = np.iinfo(dtype)
    n = draw(st.integers(1, min(100, limits.max)))
    start = draw(st.integers(max(limits.min, -1000), min(1000, limits.max - n)))
    return spaces.Discrete(n, start=start, dtype=np.dtype(dtype).type)


@st.composite
def multi_discretes(draw):
    dtype = np.dtype(draw(st.sampled_from(INTEGERS)))
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple))
    nvec = np.array(draw(st.lists(st.integers(1, 20), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))))
    start = draw(st.integers(-9 if dtype.kind == "i" else 0, 9))
    return spaces.MultiDiscrete(nvec.reshape(shape), dtype=dtype.type, start=np.full(shape, start))


multi_binaries = st.one_of(st.integers(1, 5), st.lists(st.integers(1, 3), min_size=1, max_size=3)).map(
    spaces.MultiBinary
)


@st.composite
def texts(draw):
    # Gymnasium draws texts by numpy, which takes a zero at their end for their end.
    alphabet = st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="\0")
    charset = "".join(draw(st.lists(alphabet, min_size=1, max_size=8, unique=True)))
    least = draw(st.integers(0, 3))
    space = spaces.Text(least + draw(st.integers(0, 5)), min_length=least, charset=charset)
    return space


fixed_leaves = st.one_of(boxes(), discretes(), multi_discretes(), multi_binaries)
# Gymnasium samples the nodes of a Discrete space as int64 from 0 on whatever the space says, so only those fit.
graph_parts = st.one_of(
    boxes(shapes=st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple)),
    st.integers(1, 9).map(spaces.Discrete),
)
graphs = st.builds(spaces.Graph, graph_parts, st.none() | graph_parts)
keys = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=5)


def _nest(children):
    dicts = st.lists(st.tuples(keys, children), min_size=1, max_size=3, unique_by=lambda entry: entry[0]).map(
        lambda entries: spaces.Dict(entries)
    )
    tuples = st.lists(children, min_size=1, max_size=3).map(spaces.Tuple)
    return dicts, tuples, children


def _fixed(children):
    dicts, tuples, _ = _nest(children)
    return dicts | tuples


def _ragged(children):
    dicts, tuples, children = _nest(children)
    sequences = st.builds(
        lambda child, stack: spaces.Sequence(child, stack=stack), fixed_leaves | texts(), st.booleans()
    )
    one_ofs = st.lists(children, min_size=1, max_size=3).map(spaces.OneOf)
    return dicts | tuples | sequences | one_ofs


fixed_spaces = st.recursive(fixed_leaves, _fixed, max_leaves=6)
all_spaces = st.recursive(fixed_leaves | texts() | graphs, _ragged, max_leaves=6)
