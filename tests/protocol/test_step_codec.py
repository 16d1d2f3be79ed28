"""The quick ways of a step, byte by byte: the same messages and the same refusals as the general ones."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from space_strategies import fixed_spaces

from simservice.errors import InvalidInput
from simservice.protocol.messages import decode_step, decode_step_result, encode_step_result
from simservice.protocol.step_actions import StepActions, StepRequests
from simservice.protocol.step_replies import KINDS_READ, StepReplies, StepReplyReader, timed
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.varints import numbered, read_varint, varint
from simservice.types import Info, StepResult, leaves_of, to_leaves

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


def test_a_world_that_shows_nothing_answers_as_well():
    stepped = StepResult({}, np.ones(2), np.zeros(2, bool), np.ones(2, bool), {})
    sent = pb.PlayReply.FromString(StepReplies(()).encode(3, stepped))
    assert sent == pb.PlayReply(sequence=3, stepped=encode_step_result((), stepped))
    StepReplyReader(()).learn(decode_step_result((), sent.stepped, 2))


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


@settings(deadline=None)
@given(fixed_spaces, st.integers(1, 5), st.integers(1, 2**63), st.integers(0, 2**32 - 1), st.data())
def test_a_request_is_the_message_that_generated_code_makes(space, lanes, sequence, timeout_ms, data):
    leaves = leaves_of(space, "action")
    raws = tuple(
        data.draw(st.binary(min_size=leaf_bytes(leaf, lanes), max_size=leaf_bytes(leaf, lanes))) for leaf in leaves
    )
    written = StepRequests.message(sequence, raws, timeout_ms)
    asked = pb.PlayRequest(sequence=sequence, step=message(list(raws)), timeout_ms=timeout_ms)
    assert pb.PlayRequest.FromString(written) == asked
    read = StepActions(leaves).read(written, sequence, lanes)
    slow = outcome(decode_step, leaves, list(raws), lanes)
    if read is not None:  # whatever is taken quickly is what the general way takes
        assert read.timeout_ms == timeout_ms
        assert described(read.action) == slow


@pytest.mark.parametrize("timeout_ms", [0, 1, 30_000])
@pytest.mark.parametrize(
    "space",
    [spaces.Discrete(3), spaces.Box(-1, 1, (2,)), spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 1, (3,)))],
    ids=str,
)
def test_a_plain_step_is_read_at_once(space, timeout_ms):
    leaves, read = plain(space, timeout_ms)
    assert read.timeout_ms == timeout_ms
    assert set(read.action) == {leaf.path for leaf in leaves}


def plain(space, timeout_ms, lanes=4):
    leaves = leaves_of(space, "action")
    rows = [to_leaves(space, space.sample(), "action") for _ in range(lanes)]
    action = {leaf.path: np.stack([row[leaf.path] for row in rows]) for leaf in leaves}
    sent = StepRequests.message(300, StepRequests(leaves).raw(action, lanes), timeout_ms)
    read = StepActions(leaves).read(sent, 300, lanes)
    assert described(read.action) == described(action)
    return leaves, read


@pytest.mark.parametrize(
    "change",
    [
        lambda sent: sent + b"\x60\x81\x00",  # a number longer than need be
        lambda sent: sent + b"\x98\x06\x01",  # a field that nobody knows
        lambda sent: sent[:-1],
        lambda sent: b"\x08\xad\x02" + sent[3:],  # another number
        lambda sent: sent[:-8] + b"\x07" + bytes(7),  # no such action
        lambda sent: sent + b"\x60\x80\x80\x80\x80\x10",  # too long a time
        lambda sent: b"",
    ],
)
def test_what_is_no_plain_step_is_left_to_the_general_way(change):
    leaves = leaves_of(spaces.Discrete(3), "action")
    sent = StepRequests.message(300, StepRequests(leaves).raw({"action": np.array([0, 1, 2])}, 3))
    assert StepActions(leaves).read(sent, 300, 3) is not None
    assert StepActions(leaves).read(change(sent), 300, 3) is None


@settings(deadline=None)
@given(
    lanes=st.integers(1, 40),
    named=st.dictionaries(st.text(max_size=20), st.tuples(st.sampled_from(DTYPES), st.sampled_from(["all", "some"]))),
    shape=st.sampled_from([(), (0,), (3,), (2, 5)]),
    final=st.booleans(),
    split=st.lists(st.integers(0, 2**40), max_size=4),
)
def test_a_reply_of_a_known_kind_is_read_as_the_general_way_reads_it(lanes, named, shape, final, split):
    infos = {
        name: Info(
            np.ones((lanes, *shape), dtype), np.arange(lanes) % 2 == 0 if who == "some" else np.ones(lanes, bool)
        )
        for name, (dtype, who) in named.items()
    }
    sent = timed(StepReplies(OBSERVATION).encode(9, result(lanes, infos, final)), 77, split)
    reader, begin = StepReplyReader(OBSERVATION), len(numbered(9))
    assert reader.read(sent, begin) is None  # nothing is known yet
    message = pb.PlayReply.FromString(sent)
    general = decode_step_result(OBSERVATION, message.stepped, lanes)
    reader.learn(general)
    read = reader.read(sent, begin)
    if final:
        assert read is None
        return
    assert told(read.result) == told(general)
    assert all(array.flags.writeable for array in arrays_of(read.result))
    times = pb.PlayReply.FromString(read.times)
    assert times.server_ns == 77
    assert [times.queue_ns, times.wait_ns, times.model_ns, times.encode_ns][: len(split)] == split
    for cut in range(len(sent)):
        assert reader.read(sent[:cut], begin) is None or len(sent) - cut <= len(read.times)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_large_arrays_stay_where_they_lie_in_a_message_that_is_nobody_elses(dtype):
    leaves = leaves_of(spaces.Box(0, 255, (32, 32), dtype), "observation")
    picture = np.random.default_rng(0).integers(0, 255, (7, 32, 32)).astype(dtype)
    zeros = np.zeros(7)
    sent = StepReplies(leaves).encode(1, StepResult({"observation": picture}, zeros, zeros > 1, zeros > 1, {}))
    reader = StepReplyReader(leaves)
    reader.learn(decode_step_result(leaves, pb.PlayReply.FromString(sent).stepped, 7))
    for message in (sent, bytearray(sent)):
        result, times = reader.read(message, 2)
        found = result.observation["observation"]
        assert np.array_equal(found, picture) and found.dtype == picture.dtype and isinstance(times, bytes)
        assert all(array.flags.writeable for array in (found, result.reward, result.terminated, result.truncated))
        found += 1  # of nobody else's
        assert reader.read(sent, 2).result.observation["observation"].tobytes() == picture.tobytes()
    if dtype == "uint8":
        assert bytes(memoryview(found.reshape(-1))) in bytes(message), "it was copied"


def test_truth_values_that_are_none_are_left_to_the_general_way():
    reader, sent = StepReplyReader(OBSERVATION), StepReplies(OBSERVATION).encode(1, result(3))
    reader.learn(decode_step_result(OBSERVATION, pb.PlayReply.FromString(sent).stepped, 3))
    assert reader.read(sent, 2) is not None
    assert reader.read(sent[:-1] + b"\x02", 2) is None


def test_a_reader_knows_the_newest_kinds():
    reader, replies = StepReplyReader(OBSERVATION), StepReplies(OBSERVATION)
    kinds = [result(2, {f"info {number}": Info(np.ones(2), np.ones(2, bool))}) for number in range(KINDS_READ + 1)]
    for kind in kinds:
        reader.learn(kind)
    known = [reader.read(replies.encode(1, kind), 2) is not None for kind in kinds]
    assert known == [False] + [True] * KINDS_READ


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_a_number_is_read_where_it_was_written(number, before):
    written = before + varint(number)
    assert read_varint(written + b"rest", len(before)) == (number, len(written))
    assert read_varint(written[:-1], len(before)) == (0, 0)


def arrays_of(stepped):
    return [*stepped.observation.values(), stepped.reward, stepped.terminated, stepped.truncated] + [
        array for info in stepped.infos.values() for array in (info.value, info.present)
    ]


def told(stepped):
    arrays = [(array.dtype, array.shape, array.tobytes()) for array in arrays_of(stepped)]
    return [*stepped.observation], [*stepped.infos], arrays


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
    return described(found)


def described(leaves):
    return {path: (array.dtype, array.shape, array.tobytes()) for path, array in leaves.items()}
