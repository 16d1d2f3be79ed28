"""The tokens family on a corridor of four cells: what it learns in seconds, one token after another and all at once."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from world_fitting import segments

from simservice.errors import ConfigError, InvalidInput
from simservice.types import Context, Episode, WorldSpec
from simservice.worlds import registry
from simservice.worlds.rollout import imagine

CELLS, PIXELS = 4, 4
PICTURE = spaces.Box(0, 255, (PIXELS, CELLS * PIXELS, 3), np.uint8)
SMALL = {
    **{
        "patch": PIXELS,
        "levels": (4, 4),
        "codes": 16,
        "tokenizer_hidden": 32,
        "width": 32,
        "heads": 2,
        "layers": 1,
        "window": 3,
    },
    **{
        "decoder_layers": 1,
        "dropout": 0.0,
        "tokenizer_learning_rate": 1e-2,
        "batch": 32,
        "segment": 3,
        "learning_rate": 5e-3,
        "reward_values": 8,
    },
}


def frame(cell):
    """A white dot in one of the cells."""
    picture = np.zeros(PICTURE.shape, np.uint8)
    picture[:, cell * PIXELS : (cell + 1) * PIXELS] = 255
    return picture


def walks(count=80, seed=0, turned=False):
    """Random walks from the first three cells; the last cell ends them and pays 1. Turned: actions are reversed."""
    chance, walked = np.random.default_rng(seed), []
    for _ in range(count):
        cells, acted = [int(chance.integers(CELLS - 1))], []
        while cells[-1] < CELLS - 1 and len(acted) < 8:
            acted.append(int(chance.integers(2)))
            cells.append(min(max(cells[-1] + (1 if acted[-1] != turned else -1), 0), CELLS - 1))
        ended = cells[-1] == CELLS - 1
        reward = np.zeros(len(acted))
        reward[-1] = float(ended)
        seen, actions = np.stack([frame(cell) for cell in cells]), np.array(acted, np.int64)
        walked.append(Episode({"observation": seen}, {"action": actions}, reward, ended, not ended))
    return walked


def untrained(space=PICTURE, **overrides):
    spec = WorldSpec(
        name="corridor", version="", family="tokens", observation_space=space, action_space=spaces.Discrete(2)
    )
    torch.manual_seed(0)
    return registry.create("tokens", spec, {**SMALL, **overrides})


def learned(data, updates=(100, 160), **overrides):
    world, chance = untrained(**overrides), np.random.default_rng(0)
    world.prepare(data)
    for phase, count in zip(world.phases(), updates, strict=True):
        world.train()
        optimizer = torch.optim.AdamW(world.parameters(), lr=phase.learning_rate)
        frozen = [value.clone() for value in world.tokenizer.parameters()]
        for update in range(count):
            for group in optimizer.param_groups:
                group["lr"] = phase.learning_rate * (1 - update / count)
            loss, _ = world.loss(segments(data, phase.batch_size, phase.segment_length, chance), {}, phase.name)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(frozen, world.tokenizer.parameters(), strict=True))
    world.eval().requires_grad_(False)
    world.calibrate(walks(20, 1))
    return world


@pytest.fixture(scope="module", params=["autoregressive", "parallel"])
def world(request):
    """As a world is by itself; and the other way of everything."""
    other = {"decoding": "parallel", "quantizer": "fsq", "starts": "imagined"}
    return learned(walks(), **({} if request.param == "autoregressive" else other))


def cells(observation):
    """Where the dot is in frames (..., rows, columns, 3); -1 where there is not exactly one."""
    light = observation.reshape(*observation.shape[:-3], PIXELS, CELLS, PIXELS, 3).mean((-4, -2, -1))
    return np.where((light > 128).sum(-1) == 1, light.argmax(-1), -1)


def stepped(world, start, acted):
    """Rollouts from cells under actions (B, T)."""
    context = Context({"observation": np.stack([frame(cell) for cell in start])[:, None]}, {})
    return imagine(world, {"action": np.array(acted, np.int64)}, context=context)


def test_a_dot_goes_where_it_is_sent(world):
    found = stepped(world, [0, 1, 2], [[1, 1], [0, 0], [0, 1]])
    assert cells(found.observation["observation"]).tolist() == [[0, 1, 2], [1, 0, 0], [2, 1, 2]]


def test_what_an_action_does_is_learned_from_the_data():
    world = learned(walks(turned=True))
    found = stepped(world, [0, 1, 2], [[0, 0], [1, 1], [1, 0]])
    assert cells(found.observation["observation"]).tolist() == [[0, 1, 2], [1, 0, 0], [2, 1, 2]]


def test_a_frame_with_tokens_never_seen_is_more_uncertain_than_any_seen_one(world):
    known = stepped(world, [0, 1, 2, 2], [[1], [0], [1], [0]]).uncertainty
    red = Context({"observation": (frame(1) * np.array([1, 0, 0], np.uint8))[None, None]}, {})
    strange = imagine(world, {"action": np.zeros((1, 1), np.int64)}, context=red).uncertainty
    assert known.max() < strange.min()


def test_reward_and_end_are_read_from_the_frame_that_was_drawn(world):
    found = stepped(world, [2, 2, 1], [[1], [0], [1]])
    np.testing.assert_allclose(found.reward[:, 0], [1, 0, 0], atol=0.1)
    assert found.termination_probability[0, 0] > 0.9 and (found.termination_probability[1:, 0] < 0.1).all()


def test_first_frames_are_those_of_resets_and_vary(world):
    start = cells(imagine(world, {"action": np.zeros((192, 0), np.int64)}).observation["observation"])[:, 0]
    shares = np.bincount(start[start >= 0], minlength=CELLS) / len(start)
    assert shares[: CELLS - 1].min() > 0.05, shares  # learned from a few updates: a third each is for longer ones
    assert shares[CELLS - 1] < 0.1 and shares.sum() > 0.7, shares


def test_a_picture_that_the_patch_does_not_divide_is_refused():
    with pytest.raises(InvalidInput, match=r"4 x 16 pixels are no multiple of the patch, 3; set patch"):
        untrained(patch=3)
    with pytest.raises(InvalidInput, match="no picture"):
        untrained(space=spaces.Box(0, 1, (4,), np.float32))


@pytest.mark.parametrize(
    ("height", "width", "patch"), [(32, 32, 8), (64, 64, 8), (84, 84, 7), (96, 96, 8), (210, 160, 10), (10, 10, 2)]
)
def test_pictures_of_any_usual_size_are_cut_into_a_few_hundred_patches_or_less(height, width, patch):
    space = spaces.Box(0, 255, (height, width, 3), np.uint8)
    assert untrained(space=space, patch=None).tokenizer.patch == patch


def test_a_picture_that_no_patch_cuts_into_few_is_refused_in_words():
    for height, width in ((211, 160), (100, 98)):
        with pytest.raises(InvalidInput, match=r"no patch cuts its .* pixels into a few hundred squares"):
            untrained(space=spaces.Box(0, 255, (height, width, 3), np.uint8), patch=None)


def test_a_config_that_cannot_be_is_refused():
    for wrong, words in (
        ({"width": 40}, "multiple"),
        ({"patch": 0}, "1 or more"),
        ({"window": 0}, "1 or more"),
        ({"temperature": 0.0}, "above 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            untrained(**wrong)
