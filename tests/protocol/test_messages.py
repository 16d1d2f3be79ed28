"""The contract, requests and results survive the wire; broken ones are refused by field."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from simservice.errors import InvalidInput
from simservice.protocol import messages
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1 import world_pb2 as world_pb
from simservice.types import Context, Info, ResetResult, StepResult, WorldSpec, leaves_of

LANES = 3
OBSERVATION = leaves_of(
    spaces.Dict(position=spaces.Box(-1, 1, (2,)), lamp=spaces.Box(0, 1, (), np.bool_)), "observation"
)
ACTION = leaves_of(spaces.Discrete(4), "action")


def observation(offset=0.0, lead=(LANES,)):
    return {
        "observation/lamp": np.ones(lead, bool),
        "observation/position": np.full((*lead, 2), 0.25 + offset, np.float32),
    }


def through(message):
    return type(message).FromString(message.SerializeToString())


def assert_same_leaves(found, sent):
    assert found.keys() == sent.keys()
    for path, array in sent.items():
        assert found[path].dtype == array.dtype
        assert np.array_equal(found[path], array)
        assert found[path].flags.writeable


def contract(**changes):
    fields = {
        "name": "toy",
        "version": "0123456789ab",
        "family": "toy",
        "observation_space": spaces.Box(-1, 1, (2,)),
        "action_space": spaces.Discrete(4),
        "max_episode_steps": 500,
        "render_modes": ("rgb_array",),
        "metadata": {"render_fps": 50},
        "capabilities": frozenset({"reward", "termination"}),
        "trust_horizon_steps": 20,
    }
    return messages.WorldContract(
        spec=WorldSpec(**fields | changes),
        limits=messages.Limits(max_num_envs=256, max_context_frames=8, lane_bytes=96),
        provenance={"env_id": "CartPole-v1", "real_steps": 1500, "fidelity": {"r2": 0.9}},
        autoreset_modes=(AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED),
        server_version="1.2.3",
    )


def test_the_contract_comes_out_as_it_went_in():
    sent = contract()
    assert messages.decode_world(through(messages.encode_world(sent))) == sent


def test_what_a_world_leaves_open_comes_out_as_none():
    found = messages.decode_world(messages.encode_world(contract(max_episode_steps=None, trust_horizon_steps=None)))
    assert found.spec.max_episode_steps is None
    assert found.spec.trust_horizon_steps is None


def test_a_world_that_cannot_be_trusted_at_all_is_not_one_that_was_never_measured():
    found = messages.decode_world(through(messages.encode_world(contract(trust_horizon_steps=0))))
    assert found.spec.trust_horizon_steps == 0


def test_numbers_json_has_no_word_for_become_null():
    found = messages.decode_world(messages.encode_world(contract(metadata={"r2": np.float64("nan"), "n": np.int64(3)})))
    assert found.spec.metadata == {"r2": None, "n": 3}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metadata": {"x": "y" * 70_000}}, "metadata: takes"),
        ({"metadata": {"x": object()}}, "object is no JSON value"),
        (
            {"action_space": spaces.Dict({"a/b": spaces.Discrete(2), "a": spaces.Dict(b=spaces.Discrete(2))})},
            "share a path",
        ),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(changes, words):
    with pytest.raises(InvalidInput, match=words):
        messages.encode_world(contract(**changes))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_autoreset_modes_keep_their_meaning(mode):
    assert messages.decode_mode(messages.encode_mode(mode)) is mode


def test_an_autoreset_mode_left_out_is_next_step_and_an_unknown_one_is_refused():
    assert messages.decode_mode(world_pb.AUTORESET_MODE_UNSPECIFIED) is AutoresetMode.NEXT_STEP
    with pytest.raises(InvalidInput, match="9 is no autoreset mode"):
        messages.decode_mode(9)


def test_a_step_carries_one_action_a_lane_and_refuses_what_is_no_action():
    sent = {"action": np.array([0, 3, 1])}
    assert_same_leaves(messages.decode_step(ACTION, through(messages.encode_step(ACTION, sent, LANES)), LANES), sent)
    with pytest.raises(InvalidInput, match=r"action: 4 \(lane 1\)"):
        messages.decode_step(ACTION, messages.encode_step(ACTION, {"action": np.array([0, 4, 1])}, LANES), LANES)
    with pytest.raises(InvalidInput, match=r"shape \(2,\) was given, \(3,\) is expected"):
        messages.encode_step(ACTION, {"action": np.array([0, 1])}, LANES)


def reset_over_the_wire(mask=None, seeds=None, options=None, context=None, max_context_frames=4):
    sent = messages.encode_reset(mask, seeds, options or {}, context, observation=OBSERVATION, action=ACTION)
    return messages.decode_reset(
        through(sent), LANES, observation=OBSERVATION, action=ACTION, max_context_frames=max_context_frames
    )


def test_an_empty_reset_leaves_everything_open():
    assert reset_over_the_wire() == (None, None, {}, None)


def test_a_reset_carries_mask_seeds_options_and_context():
    given = Context(observation(lead=(LANES, 4)), {"action": np.ones((LANES, 3), np.int64)})
    mask, seeds, options, context = reset_over_the_wire(
        np.array([True, False, True]), [5, -1, 2**63 - 1], {"wind": 0.5}, given
    )
    assert mask.tolist() == [True, False, True]
    assert seeds.tolist() == [5, -1, 2**63 - 1]
    assert options == {"wind": 0.5}
    assert_same_leaves(context.observation, given.observation)
    assert_same_leaves(context.action, given.action)


@pytest.mark.parametrize("frames", [1, 5])
def test_a_context_is_one_frame_or_as_many_as_the_world_takes(frames):
    given = Context(observation(lead=(LANES, frames)), {"action": np.ones((LANES, frames - 1), np.int64)})
    if frames == 1:
        assert reset_over_the_wire(context=given)[3].frames == 1
    else:
        with pytest.raises(InvalidInput, match="takes 1 to 4 frames"):
            reset_over_the_wire(context=given)


def test_a_context_may_leave_the_observation_bounds_but_not_the_numbers():
    outside = Context(observation(5.0, (LANES, 1)), {"action": np.zeros((LANES, 0), np.int64)})
    assert reset_over_the_wire(context=outside)[3].observation["observation/position"].max() > 1
    broken = Context(observation(np.nan, (LANES, 1)), {"action": np.zeros((LANES, 0), np.int64)})
    with pytest.raises(InvalidInput, match="observation/position: holds nan"):
        reset_over_the_wire(context=broken)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Reset(mask=b"\x01"), "mask"),
        (pb.Reset(mask=b"\x01\x02\x00"), "mask"),
        (pb.Reset(seeds=bytes(9)), "seeds"),
        (pb.Reset(seeds=np.array([0, 0, -2]).tobytes()), "seeds"),
        (pb.Reset(options_json="{"), "options"),
        (pb.Reset(options_json="[1]"), "options"),
        (pb.Reset(context=pb.Grounding(frames=0)), "context"),
    ],
)
def test_a_broken_reset_is_refused_by_field(message, field):
    with pytest.raises(InvalidInput) as caught:
        messages.decode_reset(message, LANES, observation=OBSERVATION, action=ACTION, max_context_frames=4)
    assert caught.value.details["field"] == field


def step_result(**changes):
    fields = {
        "observation": observation(),
        "reward": np.array([0.1, 1e300, -1.0]),
        "terminated": np.array([True, False, False]),
        "truncated": np.array([False, False, True]),
        "infos": {
            "uncertainty": Info(np.array([0.5, 0.25, 0.0], np.float32), np.array([True, True, False])),
            "vector": Info(np.arange(6).reshape(3, 2), np.ones(3, bool)),
            "flag": Info(np.array([True, False, True]), np.ones(3, bool)),
        },
    }
    return StepResult(**fields | changes)


def test_a_step_result_comes_out_as_it_went_in():
    sent = step_result()
    found = messages.decode_step_result(OBSERVATION, through(messages.encode_step_result(OBSERVATION, sent)), LANES)
    assert_same_leaves(found.observation, sent.observation)
    for name in ("reward", "terminated", "truncated"):
        assert getattr(found, name).dtype == getattr(sent, name).dtype
        assert getattr(found, name).tolist() == getattr(sent, name).tolist()
    assert found.final is None and found.final_observation is None
    assert found.infos.keys() == sent.infos.keys()
    for name, info in sent.infos.items():
        assert found.infos[name].value.dtype == info.value.dtype
        assert np.array_equal(found.infos[name].value, info.value)
        assert np.array_equal(found.infos[name].present, info.present)


def test_final_observations_travel_with_their_mask():
    sent = step_result(final=np.array([True, False, False]), final_observation=observation(0.5))
    found = messages.decode_step_result(OBSERVATION, messages.encode_step_result(OBSERVATION, sent), LANES)
    assert found.final.tolist() == [True, False, False]
    assert_same_leaves(found.final_observation, sent.final_observation)


@pytest.mark.parametrize("field", ["rewards", "terminated", "truncated", "final"])
def test_a_step_result_of_the_wrong_size_is_refused_by_field(field):
    message = messages.encode_step_result(
        OBSERVATION, step_result(final=np.array([True, False, False]), final_observation=observation())
    )
    setattr(message, field, getattr(message, field) + b"\x00")
    with pytest.raises(InvalidInput) as caught:
        messages.decode_step_result(OBSERVATION, message, LANES)
    assert caught.value.details["field"] == field


def test_a_reset_result_comes_out_as_it_went_in():
    sent = ResetResult(observation(), {"context": Info(np.array([1, 0, 1]), np.array([True, False, True]))})
    message = through(messages.encode_reset_result(OBSERVATION, sent, LANES))
    found = messages.decode_reset_result(OBSERVATION, message, LANES)
    assert_same_leaves(found.observation, sent.observation)
    assert found.infos["context"].present.tolist() == [True, False, True]


def test_an_info_that_holds_objects_is_refused_by_name():
    with pytest.raises(InvalidInput, match="info/names: dtype"):
        messages.encode_infos({"names": Info(np.array(["a", "b", "c"]), np.ones(3, bool))})


def test_frames_come_out_as_they_went_in():
    sent = np.random.default_rng(0).integers(0, 256, (LANES, 4, 5, 3)).astype(np.uint8)
    assert np.array_equal(messages.decode_frames(through(messages.encode_frames(sent)), LANES), sent)
    with pytest.raises(InvalidInput, match="frames: 180 bytes"):
        messages.decode_frames(messages.encode_frames(sent), LANES + 1)


def test_bytes_that_are_no_request_are_refused():
    request = pb.PlayRequest(sequence=3, render=pb.Render())
    assert messages.parse_request(request.SerializeToString()) == request
    with pytest.raises(InvalidInput, match="no PlayRequest"):
        messages.parse_request(b"\xff\xff\xff")
