"""Figures of codes and of what the ring remembers, on worlds whose answers are known."""

import numpy as np
import pytest
import torch

from simservice.data.collect import RealStepCounter
from simservice.data.environments import make_environment
from simservice.errors import InvalidInput
from simservice.proving.measures_tokens import active_codes, angle_error
from simservice.proving.record import record
from simservice.types import WorldSpec
from simservice.worlds import registry

SMALL = {"patch": 8, "levels": (4, 4), "tokenizer_hidden": 16, "width": 32, "heads": 2, "layers": 1, "window": 2}


@pytest.fixture(scope="module")
def episodes():
    return record("simservice/CartPolePixels-v0", 120, 3, "random", RealStepCounter(), {"size": 16})


def world(family, overrides):
    env = make_environment("simservice/CartPolePixels-v0", {"size": 16})
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    torch.manual_seed(0)
    return registry.create(family, WorldSpec(name="any", version="", family=family, **spaces), overrides).eval()


def test_codes_in_use_are_those_of_all_frames(episodes):
    tokens = world("tokens", SMALL)
    with torch.no_grad():
        tokens.tokenizer.encoder[-1].weight.mul_(100)  # so that untrained codes differ
    frames = torch.from_numpy(np.concatenate([episode.observation["observation"] for episode in episodes]))
    seen = frames.permute(0, 3, 1, 2).float() / 255
    assert active_codes(tokens, episodes) == len(tokens.tokenizer.encode(seen).unique()) > 1


def test_a_world_without_codes_is_refused(episodes):
    with pytest.raises(InvalidInput, match="keeps no codes"):
        active_codes(world("persistence", {}), episodes)


def test_a_world_without_memory_errs_alike_after_any_context(episodes):
    still = world("persistence", {})
    one, three = (angle_error(still, episodes, frames, 3) for frames in (1, 3))
    assert one == three > 0


def test_a_world_that_loses_its_frames_errs_more_after_a_longer_context(episodes):
    short, observe = world("persistence", {}), registry.family("persistence").observe
    seen = []

    def forgetful(state, observation, previous_action, is_first, draws):
        seen[:] = [] if is_first.all() else seen
        seen.append(1)
        kept = observe(short, state, observation, previous_action, is_first, draws)
        return kept if len(seen) < 3 else {path: torch.zeros_like(rows) for path, rows in kept.items()}

    short.observe = forgetful
    assert angle_error(short, episodes, 3, 3) > angle_error(short, episodes, 1, 3)


def test_episodes_that_are_too_short_are_refused(episodes):
    with pytest.raises(InvalidInput, match="record more"):
        angle_error(world("persistence", {}), episodes, 1, 1_000)
