"""The metrics of the details page, against answers that are known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from simservice.errors import InvalidInput
from simservice.fidelity.densities import (
    coverage,
    crps,
    negative_log_likelihood,
    normal_crps,
    normal_nll,
    one_step_error,
    pit_distance,
)
from simservice.fidelity.distances import energy_distance
from simservice.fidelity.effects import action_effect_correlation, action_effect_slope
from simservice.fidelity.exploitation import exploitation_gap, is_exploited, optimise_inside
from simservice.fidelity.metric import metrics
from simservice.fidelity.noise import noise_floor
from simservice.fidelity.ranking import average_ranks, policy_ranking
from simservice.fidelity.signals import (
    false_success,
    missed_terminations,
    reward_bias,
    sparse_reward,
    termination_calibration,
)
from simservice.fidelity.support import SupportDistance, out_of_support
from simservice.fidelity.traces import Traces


def steps(count=4000, per_episode=4, horizon=1, seed=0):
    """Windows whose changes are standard normal in two dimensions."""
    generator = np.random.default_rng(seed)
    none = np.zeros((count, horizon), dtype=bool)
    return Traces(
        observation=np.cumsum(generator.normal(size=(count, horizon + 1, 2)), axis=1),
        reward=generator.normal(size=(count, horizon)),
        terminated=none,
        truncated=none,
        valid=~none,
        unit=np.arange(count) // per_episode,
    )


def predicted(real, deviation):
    """A world that knows the law of the change and nothing more, and claims this deviation."""
    observation = np.repeat(real.observation[:, :1], 2, axis=1)
    return replace(real, observation=observation, deviation=np.full((real.windows, 1, 2), deviation))


def test_formulas_of_the_normal_are_those_of_the_books():
    assert normal_nll(np.array(0.7), np.array(1.3)) == pytest.approx(-stats.norm(0, 1.3).logpdf(0.7))

    def square(x):
        return (stats.norm.cdf(x, 0.0, 1.3) - (x >= 0.7)) ** 2

    area = integrate.quad(square, -15, 0.7)[0] + integrate.quad(square, 0.7, 15)[0]
    assert normal_crps(np.array(0.7), np.array(1.3)) == pytest.approx(area, rel=1e-6)


def test_an_honest_deviation_scores_best_and_covers_what_it_says():
    real = steps()
    honest, bold, timid = (predicted(real, deviation) for deviation in (1.0, 0.4, 2.5))
    assert coverage(real, honest).value == pytest.approx(0.9, abs=0.02)
    assert coverage(real, bold).value < 0.6 < 0.99 < coverage(real, timid).value
    for score in (negative_log_likelihood, crps, pit_distance):
        assert score(real, honest).value < min(score(real, bold).value, score(real, timid).value)
    assert negative_log_likelihood(real, honest).value == pytest.approx(0.5 * math.log(2 * math.pi) + 0.5, abs=0.03)
    assert crps(real, honest).value == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)
    assert pit_distance(real, honest).value < 0.03
    assert math.isnan(crps(real, replace(honest, deviation=None)).value)


def test_the_one_step_error_is_that_of_the_worst_sensor():
    real = steps()
    wrong = real.observation.copy()
    wrong[:, 1, 1] += 0.5 * np.where(np.arange(real.windows) % 2, 1, -1)
    assert one_step_error(real, replace(real, observation=wrong)).value == pytest.approx(0.5, rel=0.03)
    assert one_step_error(real, real).value == 0


def test_energy_distance_is_nothing_for_the_same_law_and_grows_with_a_shift():
    real, other = steps(per_episode=4, horizon=3), steps(per_episode=4, horizon=3, seed=1)
    floor = noise_floor(metrics()["energy_distance_ratio"], real[:800], splits=20)
    same = energy_distance(real, other).value
    moved = energy_distance(real, replace(other, observation=other.observation * 1.5)).value
    assert energy_distance(real, real).value == 0
    assert same < floor.median  # of four times as many steps
    assert moved > floor.alert


def test_equal_returns_share_their_rank():
    values = np.array([3.0, 1.0, 3.0, 2.0, 1.0])
    np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values))


def test_effects_of_actions_are_measured_from_one_start():
    generator = np.random.default_rng(0)
    action = generator.choice([-1.0, 1.0], size=(200, 5, 1))
    observation = np.concatenate([np.zeros((200, 1, 1)), np.cumsum(action, axis=1)], axis=1)
    none = np.zeros((200, 5), dtype=bool)
    real = Traces(
        observation=observation,
        action=action,
        reward=np.zeros((200, 5)),
        terminated=none,
        truncated=none,
        valid=~none,
        unit=np.arange(200) // 4,
        pair=np.arange(200) // 2,
    )
    weak, deaf = replace(real, observation=0.5 * observation), replace(real, observation=0.0 * observation)
    mirrored = replace(real, observation=-observation)
    assert action_effect_slope(real, weak).value == pytest.approx(0.5)
    assert action_effect_correlation(real, weak).value == pytest.approx(1.0)
    assert action_effect_slope(real, deaf).value == 0
    assert action_effect_correlation(real, mirrored).value == pytest.approx(-1.0)
    elsewhere = observation.copy()
    elsewhere[0, 0] = 3.0
    with pytest.raises(InvalidInput, match="one start"):
        action_effect_slope(replace(real, observation=elsewhere), replace(real, observation=elsewhere))
    with pytest.raises(InvalidInput, match="more than two"):
        action_effect_slope(replace(real, pair=np.zeros(200, dtype=int)), real)


def test_a_success_that_reality_does_not_grant_is_false():
    real = replace(steps(100), success=np.arange(100) < 40)
    kind = replace(real, success=np.arange(100) < 55)
    assert false_success(real, kind).value == pytest.approx(15 / 60)
    assert false_success(real, real).value == 0
    assert math.isnan(false_success(replace(real, success=np.ones(100, dtype=bool)), kind).value)
    assert math.isnan(false_success(replace(real, success=None), kind).value)


def test_ends_that_a_world_misses_are_counted_by_the_thousand():
    real = steps(1000)
    ends = (np.arange(1000) % 10 == 0)[:, None]
    saw_half = (np.arange(1000) % 20 == 0)[:, None]
    assert missed_terminations(replace(real, terminated=ends), replace(real, terminated=saw_half)).value == 50
    stated = replace(real, termination_probability=np.full((1000, 1), 0.3))
    assert termination_calibration(replace(real, terminated=ends), stated).value == pytest.approx(0.2)
    assert math.isnan(termination_calibration(real, real).value)


def test_a_bias_of_the_reward_keeps_its_sign():
    real = steps()
    low = replace(real, reward=real.reward - 0.2)
    score = reward_bias(real, low)
    assert score.value == pytest.approx(-0.2, abs=0.01)
    assert score.lower <= score.value <= score.upper < 0


def test_sparse_rewards_are_scored_by_hits():
    real = replace(steps(100), reward=(np.arange(100) < 10)[:, None].astype(float))
    said = replace(real, reward=((np.arange(100) >= 5) & (np.arange(100) < 25))[:, None].astype(float))
    found = sparse_reward(real, said, 0.5)
    assert (found.precision, found.recall, found.f1) == (0.25, 0.5, pytest.approx(1 / 3))
    assert math.isnan(sparse_reward(real, said, 2.0).recall)


def test_what_lies_beyond_the_reference_is_out_of_support():
    generator = np.random.default_rng(0)
    known = generator.normal(size=(3000, 2))
    distance = SupportDistance.fitted(known, np.zeros((3000, 1)))
    assert distance(np.array([[8.0, 0.0]]), np.zeros((1, 1))) > 10 * distance(np.zeros((1, 2)), np.zeros((1, 1)))
    real = replace(steps(), uncertainty=generator.random((4000, 1)))
    far = real.uncertainty.copy()
    far[:1000] += 1.0
    assert out_of_support(real, replace(real, uncertainty=far)).value == pytest.approx(0.25, abs=0.02)
    assert out_of_support(real, real).value == pytest.approx(0.01, abs=0.001)
    assert math.isnan(out_of_support(steps(), steps()).value)
    with pytest.raises(InvalidInput, match="more than 5"):
        SupportDistance.fitted(np.zeros((5, 2)), np.zeros((5, 1)))


def test_an_optimiser_finds_the_fault_of_a_world_that_a_fixed_suite_does_not():
    """Reality: the nearer to 1 the better. The dream is the same, but for a mountain beyond 3 that is not there."""

    def reality(policies):
        return -np.abs(policies[:, 0] - 1.0)

    def dream(policies):
        return reality(policies) + 20.0 * np.maximum(policies[:, 0] - 2.0, 0.0)

    suite = np.linspace(-1.5, 1.5, 8)[:, None]
    np.testing.assert_array_equal(dream(suite), reality(suite))
    ranking = policy_ranking(
        {str(i): np.full(2, v) for i, v in enumerate(reality(suite))},
        {str(i): np.full(2, v) for i, v in enumerate(dream(suite))},
    )
    assert ranking.spearman.value == pytest.approx(1.0)
    generator = np.random.default_rng(1)
    for world, exploited in ((dream, True), (reality, False)):
        policy = optimise_inside(world, 1, seed=4)[None]
        inside = world(policy) + 0.1 * generator.normal(size=30)
        outside = reality(policy) + 0.1 * generator.normal(size=30)
        gap = exploitation_gap(inside, outside, scale=2.5)
        assert is_exploited(gap) is exploited
        assert gap.lower <= gap.value <= gap.upper
    assert not is_exploited(exploitation_gap(np.zeros(1), np.zeros(1), 1.0))
    assert policy[0, 0] == pytest.approx(1.0, abs=0.2)


def test_the_noise_floor_of_returns_is_what_two_halves_of_reality_differ_by():
    generator = np.random.default_rng(5)
    returns = {name: generator.normal(0, 10, 200) for name in "abcd"}
    real = replace(steps(100), returns=returns, return_range=(0.0, 100.0))
    floor = noise_floor(metrics()["return_gap_max_abs"], real, splits=30)
    means = generator.normal(0, 10, (400, 4, 2, 100)).mean(axis=3)
    drawn = np.abs(means[..., 0] - means[..., 1]).max(axis=1) / 100
    assert floor.median == pytest.approx(np.median(drawn), rel=0.4)
    assert floor.alert >= max(floor.warn, 2 * floor.median)
    assert noise_floor(metrics()["one_step_error_ratio"], real).splits == 0
