"""The quick ways of a step, byte by byte: the same messages and the same refusals as the general ones."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from space_strategies import fixed_spaces

from simservice.errors import InvalidInput
from simservice.protocol.messages import decode_step, encode_step_result
from simservice.protocol.step_actions import StepActions
from simservice.protocol.step_replies import StepReplies, timed, varint
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Info, StepResult, leaves_of

OBSERVATION = leaves_of(
    spaces.Dict(position=spaces.Box(-1, 1, (2,)), lamp=spaces.Box(0, 1, (), np.bool_), none=spaces.Box(0, 1, (0,))),
    "observation",
)
DTYPES = ("float32", "float64", "int64", "uint8", "bool")


def result(lanes, infos=None, final=False):
    rng = np.random.default_rng(lanes)
    observation = {leaf.path: rng.integers(0, 2, (lanes, *leaf.shape)).astype(leaf.dtype) for leaf in OBSERVATION}
    ended = rng.random(lanes) < 0.5
    return StepResult(
        observation=observation,
        reward=rng.normal(size=lanes),
        terminated=ended,
        truncated=~ended,
        infos=infos or {},
        final_observation=observation if final else None,
        final=ended if final else None,
    )


def generated(sequence, stepped):
    return pb.PlayReply(sequence=sequence, stepped=encode_step_result(OBSERVATION, stepped))


@settings(deadline=None)
@given(
    sequence=st.integers(1, 2**63),
    lanes=st.integers(1, 300),
    named=st.dictionaries(st.text(max_size=200), st.tuples(st.sampled_from(DTYPES), st.sampled_from(["all", "some"]))),
    shape=st.sampled_from([(), (0,), (3,), (130,), (2, 5)]),
    final=st.booleans(),
)
def test_a_reply_is_the_message_that_generated_code_makes(sequence, lanes, named, shape, final):
    infos = {
        name: Info(
            np.ones((lanes, *shape), dtype), np.arange(lanes) % 2 == 0 if who == "some" else np.ones(lanes, bool)
        )
        for name, (dtype, who) in named.items()
    }
    stepped, replies = result(lanes, infos, final), StepReplies(OBSERVATION)
    for _ in range(2):  # the second is written with what the first has left
        assert pb.PlayReply.FromString(replies.encode(sequence, stepped)) == generated(sequence, stepped)


def test_an_observation_of_the_wrong_shape_is_refused_by_name():
    stepped = result(3)
    stepped.observation["observation/position"] = np.zeros((2, 2), np.float32)
    with pytest.raises(InvalidInput, match="position"):
        StepReplies(OBSERVATION).encode(1, stepped)


@given(st.integers(0, 2**64 - 1))
def test_the_time_in_the_server_may_follow_the_reply(server_ns):
    reply = pb.PlayReply.FromString(timed(StepReplies(OBSERVATION).encode(7, result(2)), server_ns))
    assert (reply.sequence, reply.server_ns) == (7, server_ns)
    assert len(varint(server_ns)) <= 10


@settings(deadline=None)
@given(fixed_spaces, st.integers(1, 5), st.data())
def test_actions_are_read_or_refused_as_the_general_way_does(space, lanes, data):
    leaves = leaves_of(space, "action")
    raws = [data.draw(st.binary(min_size=size, max_size=size)) for leaf in leaves for size in [leaf_bytes(leaf, lanes)]]
    quick, slow = (outcome(read, leaves, raws, lanes) for read in (quickly, decode_step))
    assert quick == slow


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.Discrete(3, start=-1),
        spaces.Box(-1, 1, (2,)),
        spaces.Box(-np.inf, np.inf, (1,), np.float64),
    ],
    ids=str,
)
def test_legal_actions_are_read(space):
    leaves = leaves_of(space, "action")
    actions = np.stack([space.sample() for _ in range(4)])
    raws = [actions.tobytes()]
    assert outcome(quickly, leaves, raws, 4) == outcome(decode_step, leaves, raws, 4)
    (read,) = quickly(leaves, message(raws), 4).values()
    assert np.array_equal(read, actions)
    assert read.flags.writeable


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.5, -1.5])
def test_numbers_outside_a_box_are_refused_by_lane(value):
    leaves = leaves_of(spaces.Box(-1, 1, (2,)), "action")
    actions = np.zeros((3, 2), np.float32)
    actions[1, 0] = value
    with pytest.raises(InvalidInput, match="action"):
        quickly(leaves, message([actions.tobytes()]), 3)


@pytest.mark.parametrize("value", [3, -1, 2**62, -(2**63)])
def test_categories_that_are_not_there_are_refused(value):
    leaves = leaves_of(spaces.Discrete(3), "action")
    with pytest.raises(InvalidInput, match=str(value)):
        quickly(leaves, message([np.array([0, value]).tobytes()]), 2)


def test_an_infinite_action_is_refused_where_the_space_has_no_bounds():
    leaves = leaves_of(spaces.Box(-np.inf, np.inf, (1,), np.float32), "action")
    with pytest.raises(InvalidInput, match="finite"):
        quickly(leaves, message([np.array([[np.inf]], np.float32).tobytes()]), 1)


def quickly(leaves, sent, lanes):
    return StepActions(leaves).decode(sent, lanes)


def message(raws):
    return pb.Step(action=pb.Values(leaves=raws))


def leaf_bytes(leaf, lanes):
    return lanes * int(np.prod(leaf.shape)) * leaf.dtype.itemsize


def outcome(read, leaves, raws, lanes):
    """Paths, dtypes, shapes and bytes of what was read, or the refusal's words."""
    try:
        found = read(leaves, message(raws), lanes)
    except InvalidInput as error:
        return str(error)
    return {path: (array.dtype, array.shape, array.tobytes()) for path, array in found.items()}
