"""Parts of rollouts are written byte for byte as generated code writes them, and read back as they were."""

from dataclasses import fields, replace

import numpy as np
import pytest
from gymnasium import spaces

from simservice.errors import InvalidInput
from simservice.protocol.imagine import decode_imagined
from simservice.protocol.rollout_parts import encode_imagined
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Imagined, leaves_of

OBSERVATION = leaves_of(
    spaces.Dict({"image": spaces.Box(0, 255, (5, 4, 3), np.uint8), "speed": spaces.Box(-1, 1, (), np.float32)}),
    "observation",
)
ACTION = leaves_of(spaces.Box(-1, 1, (2,), np.float32), "action")
STEPS, LANES = 7, 3
RANDOM = np.random.default_rng(0)


def leaves(spec, *lead):
    return {leaf.path: (100 * RANDOM.random((*lead, *leaf.shape))).astype(leaf.dtype) for leaf in spec}


def mask(lead=(STEPS, LANES)):
    return RANDOM.random(lead) < 0.5


def plain(steps=STEPS, lanes=LANES):
    shape = (steps, lanes)
    return Imagined(
        reward=RANDOM.random(shape), terminated=mask(shape), truncated=np.zeros(shape, np.bool_), last=False
    )


def everything():
    final = mask()
    return replace(
        plain(),
        first=300,
        last=True,
        start=leaves(OBSERVATION, LANES),
        observation=leaves(OBSERVATION, STEPS, LANES),
        action=leaves(ACTION, STEPS, LANES),
        began=mask(),
        stopped=mask(),
        final=final,
        final_observation=leaves(OBSERVATION, int(final.sum())),
        uncertainty=RANDOM.random((STEPS, LANES)).astype(np.float32),
        distrusted=mask(),
        world_error=mask(),
        log_probability=RANDOM.random((STEPS, LANES)).astype(np.float32),
        outputs={"value": RANDOM.random((STEPS, LANES)), "raw_action": RANDOM.integers(0, 9, (STEPS, LANES, 2, 300))},
    )


def assert_same(found, wanted):
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for path in wanted:
            assert_same(found[path], wanted[path])
    elif isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        np.testing.assert_array_equal(found, wanted)
        assert found.flags.writeable
    else:
        assert found == wanted


PARTS = {
    "everything": everything(),
    "what is always there": plain(),
    "a part of pictures": replace(plain(), observation=leaves(OBSERVATION, STEPS, LANES)),
    "one lane": plain(1, 1),
    "lanes by the thousand": plain(3, 5000),
    "no last observation": replace(plain(), final_observation=leaves(OBSERVATION, 0), final=None),
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("sequence", [0, 5, 2**40])
def test_a_part_is_written_as_generated_code_writes_it_and_read_as_it_was(part, sequence):
    raw = encode_imagined(sequence, part, OBSERVATION, ACTION)
    reply = pb.PlayReply.FromString(raw)
    assert reply.SerializeToString() == raw
    assert reply.sequence == sequence
    read = decode_imagined(reply.imagined, OBSERVATION, ACTION, part.reward.shape[1])
    for field in fields(Imagined):
        assert_same(getattr(read, field.name), getattr(part, field.name))


def test_rows_that_do_not_lie_side_by_side_and_other_dtypes_are_written_as_their_values():
    part = everything()
    strided = replace(
        part,
        reward=np.asfortranarray(part.reward),
        uncertainty=part.uncertainty.astype(np.float64),
        observation={path: np.repeat(array, 2, axis=0)[::2] for path, array in part.observation.items()},
        outputs={name: np.repeat(array, 2, axis=1)[:, ::2] for name, array in part.outputs.items()},
    )
    assert encode_imagined(1, strided, OBSERVATION, ACTION) == encode_imagined(1, part, OBSERVATION, ACTION)


def test_what_cannot_travel_is_refused():
    part = plain()
    with pytest.raises(InvalidInput):
        encode_imagined(1, replace(part, outputs={"value": part.reward.astype(object)}), OBSERVATION, ACTION)
    with pytest.raises(InvalidInput):
        encode_imagined(1, replace(part, observation=leaves(OBSERVATION, STEPS, 2)), OBSERVATION, ACTION)
