"""Spaces as JSON and back, exactly."""

import json

import numpy as np
import pytest
from gymnasium import spaces

from simservice.errors import UnsupportedSpace
from simservice.worlds.spaces_json import space_from_json, space_to_json

SPACES = [
    spaces.Box(-np.inf, np.inf, (3,), np.float32),
    spaces.Box(np.array([-1.1, -np.inf, 0], np.float32), np.array([0.1, 3, np.inf], np.float32), dtype=np.float32),
    spaces.Box(np.array([-1e-300, 0.1]), np.array([1 / 3, 1e300]), dtype=np.float64),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64),
    spaces.Box(0, 2**64 - 1, (), np.uint64),
    spaces.Box(-1, 1, (2, 0), np.float16),
    spaces.Discrete(5),
    spaces.Discrete(3, start=-4, dtype=np.int32),
    spaces.MultiDiscrete([3, 2], start=[-1, 5]),
    spaces.MultiDiscrete([[3, 2], [1, 9]], dtype=np.int32),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Box(-1, 1, (2,), np.float32))]),
    spaces.Tuple((spaces.Dict({"x": spaces.MultiBinary(2)}), spaces.Tuple((spaces.Discrete(2),)))),
]


def assert_same(left, right):
    assert left == right and left.dtype == right.dtype
    if isinstance(left, spaces.Dict):
        assert list(left.spaces) == list(right.spaces)
    if isinstance(left, spaces.Dict | spaces.Tuple):
        parts = (list(s.spaces.values()) if isinstance(s, spaces.Dict) else list(s.spaces) for s in (left, right))
        for a, b in zip(*parts, strict=True):
            assert_same(a, b)
    if isinstance(left, spaces.Box):
        for name in ("low", "high", "bounded_below", "bounded_above"):
            a, b = getattr(left, name), getattr(right, name)
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_comes_back_exactly_from_strict_json(space):
    text = json.dumps(space_to_json(space, "observation"), allow_nan=False)
    assert_same(space_from_json(json.loads(text)), space)


def test_a_space_without_a_fixed_shape_is_refused_by_its_place():
    with pytest.raises(UnsupportedSpace, match="observation/a: a Text space"):
        space_to_json(spaces.Dict({"a": spaces.Text(3)}), "observation")


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="no space of kind 'Cube'"):
        space_from_json({"kind": "Cube", "dtype": "float32"})
