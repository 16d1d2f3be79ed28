"""Values survive the wire exactly, singly and batched; what does not fit its space is refused with its path."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces import GraphInstance
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from hypothesis import given, settings
from hypothesis import strategies as st
from space_strategies import all_spaces, fixed_spaces

from simservice.errors import InvalidInput
from simservice.protocol import ragged
from simservice.protocol.tensors import (
    check_finite,
    decode_values,
    encode_values,
)
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import leaves_of, to_leaves


def over_the_wire(space, value, lanes=None, check=True):
    message = pb.Values.FromString(encode_values(space, value, lanes, field="action").SerializeToString())
    return decode_values(space, message, lanes=lanes, field="action", check=check)


def assert_same(found, sent):
    if isinstance(sent, dict):
        assert list(found) == list(sent)
        for key in sent:
            assert_same(found[key], sent[key])
    elif isinstance(sent, tuple):
        assert type(found) is type(sent) and len(found) == len(sent)
        for one, other in zip(found, sent, strict=True):
            assert_same(one, other)
    elif isinstance(sent, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (sent.dtype, sent.shape)
        assert found.tobytes() == sent.tobytes()
        assert found.flags.writeable
    else:
        assert type(found) is type(sent)
        assert found == sent


def sample(space, seed):
    """One sample; where Gymnasium gives a scalar for a Box of shape (), an array."""
    space.seed(seed)

    def tidy(space, value):
        if isinstance(space, spaces.Dict):
            return {key: tidy(child, value[key]) for key, child in space.spaces.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(tidy(child, part) for child, part in zip(space.spaces, value, strict=True))
        if isinstance(space, spaces.OneOf):
            return value[0], tidy(space.spaces[value[0]], value[1])
        if isinstance(space, spaces.Sequence) and not space.stack:
            return tuple(tidy(space.feature_space, part) for part in value)
        return np.asarray(value) if isinstance(space, spaces.Box) else value

    return tidy(space, space.sample())


@settings(max_examples=120, deadline=None)
@given(space=all_spaces, seed=st.integers(0, 99))
def test_every_sample_comes_out_as_it_went_in(space, seed):
    value = sample(space, seed)
    assert_same(over_the_wire(space, value), value)


@settings(max_examples=120, deadline=None)
@given(space=all_spaces, seed=st.integers(0, 99), lanes=st.integers(1, 4))
def test_every_batch_comes_out_as_it_went_in(space, seed, lanes):
    batch = ragged.stack(space, [sample(space, seed + i) for i in range(lanes)])
    assert_same(over_the_wire(space, batch, lanes), batch)


@settings(max_examples=60, deadline=None)
@given(space=fixed_spaces, seed=st.integers(0, 99))
def test_batches_are_formed_as_gymnasium_forms_them(space, seed):
    values = [sample(space, seed + i) for i in range(3)]
    expected = concatenate(space, values, create_empty_array(space, 3))
    found = over_the_wire(space, ragged.stack(space, values), 3)
    assert found in batch_space(space, 3)
    for path, array in to_leaves(space, expected, "action").items():
        assert np.array_equal(to_leaves(space, found, "action")[path], array)


@pytest.mark.parametrize("edges", [None, 0, 2])
def test_a_graph_keeps_the_difference_between_no_edges_and_none_given(edges):
    space = spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(3))
    count = edges or 0
    links = None if edges is None else np.zeros((count, 2), np.int32)
    value = GraphInstance(np.ones((3, 2), np.float32), None if edges is None else np.ones(count, np.int64), links)
    assert_same(over_the_wire(space, value), value)


def test_an_empty_sequence_and_an_empty_text_travel():
    space = spaces.Tuple((spaces.Sequence(spaces.Discrete(2)), spaces.Text(3, min_length=0)))
    assert over_the_wire(space, ((), "")) == ((), "")


def test_what_a_user_passes_as_a_discrete_action_may_be_any_integer():
    space = spaces.Discrete(3, start=-1)
    for value in (1, np.int32(1), np.array(1), np.array(1, ">i8")):
        found = over_the_wire(space, value)
        assert type(found) is np.int64 and found == 1


def test_bytes_on_the_wire_are_little_endian_and_float64_stays_float64():
    message = encode_values(spaces.Box(-9, 9, (1,), np.float64), np.array([0.1], ">f8"), None)
    assert message.leaves == [np.array([0.1], "<f8").tobytes()]


@pytest.mark.parametrize(
    ("space", "value", "path", "words"),
    [
        (spaces.Box(-1, 1, (2,)), np.zeros(3, np.float32), "action", r"shape \(3,\) was given, \(2,\) is expected"),
        (spaces.Box(-1, 1, (2,)), ["a", "b"], "action", "dtype"),
        (spaces.Box(-1, 1, (2,)), np.zeros(2, complex), "action", "dtype complex128 was given"),
        (spaces.Discrete(2), 1.0, "action", "dtype float64 was given, int64 is expected"),
        (spaces.Discrete(2, dtype=np.int8), 300, "action", "does not fit int8"),
        (spaces.Discrete(2), None, "action", "dtype object"),
        (spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2))), (1,), "action", "a tuple of 2"),
        (spaces.Dict(a=spaces.Discrete(2)), {"a": 1, "b": 1}, "action", "keys 'a'"),
        (spaces.Dict(a=spaces.Tuple((spaces.Discrete(2),))), {"a": 5}, "action/a", "a tuple of 1"),
        (spaces.Text(3), "much too long", "action", "no text"),
        (spaces.Sequence(spaces.Text(3)), ("ok", 5), "action/1", "no text"),
        (spaces.Graph(spaces.Discrete(2), None), 5, "action", "no value of Graph"),
        (spaces.OneOf((spaces.Discrete(2),)), (1, 0), "action", "no index"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused_before_it_is_sent(space, value, path, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        encode_values(space, value, None, field="action")
    assert caught.value.details["field"] == path


@pytest.mark.parametrize(
    ("space", "value", "path", "words"),
    [
        (spaces.Box(-1, 1, (2,)), [0, np.nan], "action", r"holds nan at index \(1,\)"),
        (spaces.Box(-np.inf, np.inf, (2,)), [0, np.inf], "action", "holds inf"),
        (spaces.Dict(a=spaces.Tuple((spaces.Box(-1, 1, (1,)),))), {"a": ([np.nan],)}, "action/a/0", "nan"),
        (spaces.Box(-1, 1, (2,)), [0, 1.5], "action", r"\[0\.  1\.5\] lies outside Box"),
        (spaces.Box(0, 9, (1,), np.int8), [10], "action", "lies outside"),
        (spaces.Discrete(2, start=3), 2, "action", "2 lies outside Discrete"),
        (spaces.MultiDiscrete([100], start=[-100], dtype=np.int8), [100], "action", "lies outside"),
        (spaces.MultiBinary(2), [0, 2], "action", "lies outside"),
        (spaces.Sequence(spaces.Discrete(2)), (0, 7), "action/1", "lies outside"),
        (
            spaces.Graph(spaces.Discrete(2), spaces.Discrete(2)),
            GraphInstance(np.array([0]), np.array([0]), np.array([[0, 5]])),
            "action/edge_links",
            "node 5 of 1",
        ),
    ],
)
def test_a_value_outside_its_space_is_refused_where_it_arrives(space, value, path, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        over_the_wire(space, value)
    assert caught.value.details["field"] == path


def test_a_refused_batch_names_the_lane():
    space = spaces.Discrete(4)
    with pytest.raises(InvalidInput, match=r"9 \(lane 2\) lies outside"):
        over_the_wire(space, np.array([0, 1, 9]), 3)


def test_observations_are_taken_as_they_are_where_nobody_asks_for_a_check():
    space = spaces.Box(-1, 1, (2,))
    value = np.array([np.nan, 7], np.float32)
    assert_same(over_the_wire(space, value, check=False), value)
    with pytest.raises(InvalidInput, match="nan"):
        check_finite(leaves_of(space, "observation"), {"observation": value})


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (pb.Values(leaves=[bytes(8)]), "1 leaves were sent, 2 are expected"),
        (pb.Values(leaves=[bytes(8), bytes(2), b""]), "3 leaves"),
        (pb.Values(leaves=[bytes(7), bytes(2)]), "action/0: 7 bytes were sent"),
        (pb.Values(leaves=[bytes(8), b"\x00\x02"]), "action/1: a truth value is one byte"),
    ],
)
def test_a_message_of_the_wrong_size_is_refused(message, words):
    space = spaces.Tuple((spaces.Box(-1, 1, (1,)), spaces.Box(0, 1, (1,), np.bool_)))
    with pytest.raises(InvalidInput, match=words):
        decode_values(space, message, lanes=2, field="action")


@pytest.mark.parametrize(
    ("leaves", "lengths", "words"),
    [
        ([b"ab"], [2, 1], "more was sent"),
        ([b"ab", b""], [2], "more was sent"),
        ([], [2], "a leaf is missing"),
        ([b"ab"], [], "a length is missing"),
        ([b"ab"], [1], "announced"),
        ([b"\xff\xff"], [2], "no UTF-8"),
        ([b"??"], [2], "no text"),
    ],
)
def test_a_broken_ragged_message_is_refused(leaves, lengths, words):
    message = pb.Values(ragged=[pb.Values.Ragged(leaves=leaves, lengths=lengths)])
    with pytest.raises(InvalidInput, match=words):
        decode_values(spaces.Text(3), message, lanes=None, field="action")


def test_a_hostile_length_is_refused_before_anything_is_built():
    message = pb.Values(ragged=[pb.Values.Ragged(lengths=[2**40])])
    with pytest.raises(InvalidInput, match="no valid length"):
        decode_values(spaces.Sequence(spaces.Tuple(())), message, lanes=None, field="action")
