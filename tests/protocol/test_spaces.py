"""Spaces survive the wire exactly, and broken messages are refused with their path."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from space_strategies import all_spaces

from simservice.errors import InvalidInput
from simservice.protocol.spaces import decode_space, encode_space
from simservice.protocol.v1 import world_pb2 as pb


def over_the_wire(space):
    return decode_space(pb.Space.FromString(encode_space(space).SerializeToString()))


def assert_exactly_equal(found, sent):
    assert type(found) is type(sent)
    assert found == sent
    if isinstance(sent, spaces.Box):
        assert found.dtype == sent.dtype and found.shape == sent.shape
        assert np.array_equal(found.low, sent.low) and np.array_equal(found.high, sent.high)
        assert np.array_equal(found.bounded_below, sent.bounded_below)
        assert np.array_equal(found.bounded_above, sent.bounded_above)
    elif isinstance(sent, spaces.Discrete):
        assert (type(found.n), type(found.start)) == (type(sent.n), type(sent.start))
    elif isinstance(sent, spaces.MultiBinary):
        assert type(found.n) is type(sent.n)
    elif isinstance(sent, spaces.Text):
        assert found.character_list == sent.character_list
    elif isinstance(sent, spaces.Dict):
        assert list(found.spaces) == list(sent.spaces)
        for key in sent.spaces:
            assert_exactly_equal(found[key], sent[key])
    elif isinstance(sent, spaces.Tuple | spaces.OneOf):
        for one, other in zip(found.spaces, sent.spaces, strict=True):
            assert_exactly_equal(one, other)


@settings(max_examples=120, deadline=None)
@given(space=all_spaces)
def test_every_space_comes_out_as_it_went_in(space):
    assert_exactly_equal(over_the_wire(space), space)


@settings(max_examples=60, deadline=None)
@given(space=all_spaces)
def test_a_space_that_travelled_samples_the_same_values(space):
    found = over_the_wire(space)
    space.seed(7)
    found.seed(7)
    assert repr(found.sample()) == repr(space.sample())


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (), np.float32),
        spaces.Box(0, 255, (8, 8, 3), np.uint8),
        spaces.Box(-np.inf, np.inf, (0, 3), np.float64),
        spaces.Box(np.array([-np.inf, 0.0]), np.array([1.0, np.inf]), dtype=np.float64),
        spaces.Box(-128, 127, (2,), np.int8),
        spaces.Box(-np.inf, 5, (2,), np.int64),
        spaces.Box(-np.inf, np.array([5, 6]), (2,), np.int32),
        spaces.Box(0, 1, (3,), np.bool_),
        spaces.Discrete(2**63 + 9, dtype=np.uint64),
        spaces.Discrete(3, start=-2),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[-1, 0], [0, 7]], dtype=np.int16),
        spaces.MultiBinary(3),
        spaces.MultiBinary([3]),
        spaces.Text(9, min_length=0, charset="zé€😀\x00"),
        spaces.Text(0, min_length=0, charset=""),
        spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Dict())]),
        spaces.Tuple(()),
        spaces.Sequence(spaces.Dict(x=spaces.Discrete(2)), stack=True),
        spaces.Graph(spaces.Box(0, 1, (2,)), None),
        spaces.OneOf((spaces.Discrete(2), spaces.Text(3))),
    ],
    ids=repr,
)
def test_awkward_spaces_come_out_as_they_went_in(space):
    assert_exactly_equal(over_the_wire(space), space)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "Blackjack-v1"])
def test_spaces_of_real_environments_travel(env_id):
    with gym.make(env_id) as env:
        assert_exactly_equal(over_the_wire(env.observation_space), env.observation_space)
        assert_exactly_equal(over_the_wire(env.action_space), env.action_space)


def test_equal_bounds_take_one_element():
    message = encode_space(spaces.Box(0, 255, (96, 96, 3), np.uint8))
    assert (message.box.low, message.box.high) == (b"\x00", b"\xff")


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Box(0, 1, (2,), np.dtype(">f4")), "cannot travel"),
        (spaces.Box(0, 1, (2,), np.longdouble), "cannot travel"),
        (spaces.Dict({1: spaces.Discrete(2)}), "not a string"),
        (spaces.Text(2, charset="\ud800"), "surrogates"),
    ],
    ids=["big-endian", "long double", "integer key", "surrogate"],
)
def test_a_space_that_cannot_travel_is_refused_by_name(space, words):
    with pytest.raises(InvalidInput, match=words):
        encode_space(spaces.Dict(inner=space), "observation")


def box(**fields):
    ready = {"dtype": "float32", "shape": [2], "low": bytes(8), "high": bytes(8)} | fields
    return pb.Space(tuple=pb.Space.Tuple(spaces=[pb.Space(box=pb.Space.Box(**ready))]))


@pytest.mark.parametrize(
    "message",
    [
        box(dtype="object"),
        box(shape=[-1]),
        box(shape=[2**20, 2**20]),
        box(low=bytes(3)),
        box(low=bytes(12)),
        box(low=np.float32([1, 1]).tobytes()),
        box(low=np.float32([np.nan, 0]).tobytes()),
        pb.Space(tuple=pb.Space.Tuple(spaces=[pb.Space()])),
        pb.Space(tuple=pb.Space.Tuple(spaces=[pb.Space(discrete=pb.Space.Discrete(n=0, dtype="int64"))])),
        pb.Space(tuple=pb.Space.Tuple(spaces=[pb.Space(multi_binary=pb.Space.MultiBinary(shape=[2, 2], flat=True))])),
    ],
)
def test_a_message_that_breaks_a_rule_is_refused_with_its_path(message):
    with pytest.raises(InvalidInput, match="action/0"):
        decode_space(message, "action")
