"""Sampled actions and their log-probabilities are what torch and RLlib say of the same head and the same luck."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchMultiCategorical,
    TorchSquashedGaussian,
)
from ray.rllib.utils.spaces.space_utils import clip_action, unsquash_action

from simservice.engine.sampling import ActionDistribution, SamplingParameters, sample
from simservice.errors import InvalidInput, InvalidPolicy

LANES = 4000
BOX = spaces.Box(np.float32([-2.0, 0.0, -1.0]), np.float32([3.0, 0.5, 1.0]))
GREEDY = SamplingParameters(explore=False)


def sampled(name, space, head, seed=0, **parameters):
    """One sample of each row of `head`, by luck of the seed."""
    distribution = ActionDistribution(name, space)
    assert head.shape[1:] == distribution.head.shape
    generator = np.random.default_rng(seed)
    draws = {
        kind: (
            generator.random((len(head), *draw.shape), dtype=np.float32)
            if draw.kind == "uniform"
            else generator.standard_normal((len(head), *draw.shape), dtype=np.float32)
        )
        for kind, draw in distribution.draws.items()
    }
    return sample(distribution, {distribution.head.name: head}, draws, SamplingParameters(**parameters))


def heads(width, scale=2.0, rows=LANES):
    return (scale * np.random.default_rng(1).standard_normal((rows, width))).astype(np.float32)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_categorical_log_probabilities_are_rllibs():
    logits = heads(5)
    raw, action, log_probability = sampled("categorical", spaces.Discrete(5, start=3), logits)
    assert_close(log_probability, TorchCategorical.from_logits(torch.from_numpy(logits)).logp(torch.from_numpy(raw)))
    np.testing.assert_array_equal(action, raw + 3)
    assert (log_probability.dtype, raw.shape) == (np.float32, (LANES,))


def test_categorical_frequencies_are_the_softmax():
    logits = np.tile(np.array([[0.0, 1.0, -1.0, 2.0]], np.float32), (LANES * 25, 1))
    raw = sampled("categorical", spaces.Discrete(4), logits).raw
    expected = np.exp(logits[0]) / np.exp(logits[0]).sum()
    np.testing.assert_allclose(np.bincount(raw, minlength=4) / len(raw), expected, atol=0.006)


def test_actions_of_minus_infinity_are_never_taken_whatever_the_luck():
    distribution = ActionDistribution("categorical", spaces.Discrete(4))
    logits = np.array([[-np.inf, 0.3, 1.7, -np.inf]] * 2, np.float32)
    draws = {"uniform": np.array([[0.0], [1.0 - 2.0**-24]], np.float32)}
    found = sample(distribution, {"action_dist_inputs": logits}, draws, SamplingParameters())
    np.testing.assert_array_equal(found.raw, [1, 2])
    assert np.isfinite(found.log_probability).all()


def test_multi_categorical_is_rllibs():
    space = spaces.MultiDiscrete([3, 2, 4], start=[1, 0, -2])
    logits = heads(9)
    raw, action, log_probability = sampled("multi_categorical", space, logits)
    theirs = TorchMultiCategorical.from_logits(torch.from_numpy(logits), input_lens=[3, 2, 4])
    assert_close(log_probability, theirs.logp(torch.from_numpy(raw)))
    assert all(space.contains(row) for row in action[:50])


def test_gaussian_values_log_probabilities_and_rescaled_actions_are_rllibs():
    head = heads(6, scale=0.7)
    raw, action, log_probability = sampled("gaussian", BOX, head)
    theirs = TorchDiagGaussian.from_logits(torch.from_numpy(head))
    assert_close(log_probability, theirs.logp(torch.from_numpy(raw)))
    noise = np.random.default_rng(0).standard_normal((LANES, 3), dtype=np.float32)
    mean, log_std = torch.from_numpy(head).chunk(2, dim=-1)
    assert_close(raw, mean + log_std.exp() * torch.from_numpy(noise))
    np.testing.assert_array_equal(action, np.stack([unsquash_action(row, BOX) for row in raw]))
    clipped = sampled("gaussian", BOX, head, rescale=False)
    np.testing.assert_array_equal(clipped.action, np.stack([clip_action(row, BOX) for row in raw]))


def test_squashed_gaussian_is_sacs():
    head = heads(6, scale=1.5)  # beyond both bounds of the log standard deviation
    raw, action, log_probability = sampled("squashed_gaussian", BOX, head)
    theirs = TorchSquashedGaussian.from_logits(torch.from_numpy(head))
    noise = np.random.default_rng(0).standard_normal((LANES, 3), dtype=np.float32)
    before = theirs.loc + theirs._dist.scale * torch.from_numpy(noise)
    assert_close(raw, theirs._squash(before))
    # In float32 the two sums of a dozen terms up to 40 differ in the last bit: exact is what float64 says.
    exact = TorchSquashedGaussian(theirs.loc.double(), theirs._dist.scale.double())._squashed_logp(before.double())
    assert_close(log_probability, exact)
    assert_close(log_probability, theirs._squashed_logp(before))
    assert all(BOX.contains(row) for row in action[:100])


def test_epsilon_greedy_takes_the_best_but_for_its_share_of_even_draws():
    values = np.tile(np.array([[1.0, 3.0, 2.0, -np.inf]], np.float32), (LANES * 10, 1))
    raw, _, log_probability = sampled("epsilon_greedy", spaces.Discrete(4), values, epsilon=0.3)
    shares = np.bincount(raw, minlength=4) / len(raw)
    np.testing.assert_allclose(shares, [0.1, 0.8, 0.1, 0.0], atol=0.01)
    np.testing.assert_allclose(np.exp(log_probability[raw == 1]), 0.8, atol=1e-6)
    np.testing.assert_allclose(np.exp(log_probability[raw == 0]), 0.1, atol=1e-6)
    assert set(sampled("epsilon_greedy", spaces.Discrete(4), values).raw) == {1}


@pytest.mark.parametrize(
    ("name", "space", "width", "best"),
    [
        ("categorical", spaces.Discrete(3), 3, lambda head: head.argmax(1)),
        ("epsilon_greedy", spaces.Discrete(3), 3, lambda head: head.argmax(1)),
        ("gaussian", BOX, 6, lambda head: head[:, :3]),
        ("squashed_gaussian", BOX, 6, lambda head: np.tanh(head[:, :3])),
    ],
)
def test_without_exploration_the_best_action_comes_and_no_luck_is_asked(name, space, width, best):
    head = heads(width)
    distribution = ActionDistribution(name, space)
    found = sample(distribution, {distribution.head.name: head}, {}, GREEDY)
    np.testing.assert_array_equal(found.raw, best(head))
    assert not found.log_probability.any()


def test_a_lanes_action_does_not_depend_on_its_neighbours():
    head = heads(6, rows=64)
    distribution = ActionDistribution("squashed_gaussian", BOX)
    noise = np.random.default_rng(0).standard_normal((64, 3), dtype=np.float32)
    together = sample(distribution, {"action_dist_inputs": head}, {"normal": noise}, SamplingParameters())
    alone = sample(distribution, {"action_dist_inputs": head[7:8]}, {"normal": noise[7:8]}, SamplingParameters())
    np.testing.assert_allclose(alone.action[0], together.action[7], rtol=1e-6)
    np.testing.assert_allclose(alone.log_probability[0], together.log_probability[7], rtol=1e-5)


def test_deterministic_actions_pass_and_are_made_to_fit():
    actions = np.array([[0.0, 0.0, 9.0], [-1.0, 1.0, 0.5]], np.float32)
    found = sample(ActionDistribution("deterministic", BOX), {"actions": actions}, {}, SamplingParameters())
    np.testing.assert_array_equal(found.raw, actions)
    np.testing.assert_allclose(found.action, [[0.5, 0.25, 1.0], [-2.0, 0.5, 0.5]])
    discrete = ActionDistribution("deterministic", spaces.Discrete(3, start=5))
    assert list(sample(discrete, {"actions": np.array([2, 0])}, {}, SamplingParameters()).action) == [7, 5]
    with pytest.raises(InvalidPolicy, match="outside 0 to 2"):
        sample(discrete, {"actions": np.array([5, 0])}, {}, SamplingParameters())


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("categorical", spaces.Discrete(6)),
        ("multi_categorical", spaces.MultiDiscrete([3, 3])),
        ("epsilon_greedy", spaces.Discrete(6)),
        ("gaussian", BOX),
        ("squashed_gaussian", BOX),
    ],
)
def test_a_head_without_meaning_is_an_error_that_names_the_lane(name, space, wrong):
    head = heads(6)
    head[17, 4] = wrong
    with pytest.raises(InvalidPolicy, match="NaN or infinite in lane 17"):
        sampled(name, space, head)


def test_a_standard_deviation_beyond_all_numbers_is_an_error():
    head = np.tile(np.float32([0, 0, 0, 100, 0, 0]), (4, 1))
    with pytest.raises(InvalidPolicy, match="standard deviations"):
        sampled("gaussian", BOX, head)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InvalidPolicy, match="gaussian distribution gives actions of a Box"):
        ActionDistribution("gaussian", spaces.Discrete(3))
    with pytest.raises(InvalidPolicy, match="categorical distribution gives actions of a Discrete"):
        ActionDistribution("categorical", BOX)
    with pytest.raises(InvalidPolicy, match="distribution 'beta' is unknown"):
        ActionDistribution("beta", BOX)
    with pytest.raises(InvalidInput, match="epsilon: is 2"):
        SamplingParameters(epsilon=2)
