"""Return gap, reward error and termination scores, against answers that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simservice.errors import InvalidInput
from simservice.fidelity.outcomes import return_gap, reward_error, termination_scores
from simservice.fidelity.traces import Traces


def steps(reward: np.ndarray, terminated: np.ndarray, per_episode: int = 5) -> Traces:
    """One-step windows."""
    count = len(reward)
    return Traces(
        observation=np.zeros((count, 2, 1)),
        reward=np.asarray(reward, dtype=float)[:, None],
        terminated=np.asarray(terminated, dtype=bool)[:, None],
        truncated=np.zeros((count, 1), dtype=bool),
        valid=np.ones((count, 1), dtype=bool),
        unit=np.arange(count) // per_episode,
    )


def test_equal_returns_have_no_gap():
    returns = {"random": np.array([10.0, 20.0, 30.0]), "good": np.array([90.0, 110.0])}
    gap = return_gap(returns, returns)
    assert (gap.max_abs.value, gap.mean.value, gap.low, gap.high) == (0, 0, 20, 100)
    assert gap.max_abs.lower == 0
    assert gap.floor > 0


def test_the_gap_is_a_share_of_the_return_range_and_keeps_its_sign():
    real = {"bad": np.zeros(50), "good": np.full(50, 100.0)}
    imagined = {"bad": np.full(50, 10.0), "good": np.full(50, 70.0)}
    gap = return_gap(real, imagined)
    assert {policy.policy: policy.gap.value for policy in gap.policies} == pytest.approx({"bad": 0.1, "good": -0.3})
    assert gap.max_abs.value == pytest.approx(0.3)
    assert gap.mean.value == pytest.approx(-0.1)
    wide = return_gap(real, imagined, return_range=(0, 500))
    assert wide.max_abs.value == pytest.approx(0.06)


def test_the_interval_holds_the_true_gap_and_shrinks_with_episodes():
    generator = np.random.default_rng(0)

    def measured(episodes):
        return return_gap(
            {"one": generator.normal(0, 10, episodes)},
            {"one": generator.normal(5, 10, episodes)},
            return_range=(0, 100),
        ).mean

    few, many = measured(20), measured(2000)
    for score in (few, many):
        assert score.lower < 0.05 < score.upper
    assert (few.upper - few.lower) > 5 * (many.upper - many.lower)
    assert (few.units, many.units) == (20, 2000)


def test_the_noise_floor_is_what_two_batches_of_reality_differ_by():
    generator = np.random.default_rng(1)
    real = {name: generator.normal(0, 10, 100) for name in "abcd"}
    floor = return_gap(real, real, return_range=(0, 100)).floor
    differences = [
        max(abs(generator.normal(0, 10, 100).mean() - generator.normal(0, 10, 100).mean()) / 100 for _ in "abcd")
        for _ in range(400)
    ]
    assert floor == pytest.approx(np.median(differences), rel=0.25)


def test_one_policy_alone_is_measured_by_the_range_of_its_episodes():
    gap = return_gap({"one": np.array([0.0, 10.0])}, {"one": np.array([5.0, 15.0])})
    assert (gap.low, gap.high, gap.mean.value) == (0, 10, 0.5)


def test_without_any_range_the_gap_is_unknown_not_zero():
    gap = return_gap({"one": np.full(5, -200.0)}, {"one": np.full(5, -200.0)})
    assert np.isnan(gap.max_abs.value)
    assert np.isnan(gap.max_abs.upper)


@pytest.mark.parametrize(
    ("real", "imagined", "message"),
    [
        ({"a": np.zeros(3)}, {"b": np.zeros(3)}, "policies"),
        ({}, {}, "policies"),
        ({"a": np.zeros(3)}, {"a": np.zeros(1)}, "at least two"),
    ],
)
def test_suites_must_be_equal_and_not_too_small(real, imagined, message):
    with pytest.raises(InvalidInput, match=message):
        return_gap(real, imagined)


def test_reward_error_is_over_the_spread_of_real_rewards():
    truth = np.tile([0.0, 2.0], 50)  # standard deviation 1
    real = steps(truth, np.zeros(100))
    assert reward_error(real, real).value == 0
    assert reward_error(real, steps(truth + 0.25, np.zeros(100))).value == pytest.approx(0.25)
    constant = steps(np.full(100, 4.0), np.zeros(100))
    assert reward_error(constant, steps(np.full(100, 3.0), np.zeros(100))).value == pytest.approx(0.25)


def test_terminations_are_scored_by_hits_misses_and_false_alarms():
    truth = np.zeros(100, dtype=bool)
    truth[:10] = True
    said = np.zeros(100, dtype=bool)
    said[2:14] = True  # 8 hits, 2 misses, 4 false alarms
    scores = termination_scores(steps(np.zeros(100), truth), steps(np.zeros(100), said))
    assert (scores.precision, scores.recall, scores.ends) == (8 / 12, 0.8, 10)
    assert scores.f1.value == pytest.approx(16 / 22)
    assert scores.f1.lower <= scores.f1.value <= scores.f1.upper


def test_without_ends_the_score_is_unknown_not_perfect():
    none = steps(np.zeros(20), np.zeros(20))
    assert np.isnan(termination_scores(none, none).f1.value)


def test_calibration_compares_what_was_said_with_what_happened():
    generator = np.random.default_rng(0)
    probability = generator.random((20_000, 1))
    happened = generator.random(20_000) < probability[:, 0]
    real = steps(np.zeros(20_000), happened)
    honest = termination_scores(real, replace(real, termination_probability=probability))
    assert honest.calibration_error < 0.02
    assert honest.brier == pytest.approx(1 / 6, rel=0.03)
    boastful = termination_scores(real, replace(real, termination_probability=np.ones_like(probability)))
    assert boastful.calibration_error == pytest.approx(0.5, abs=0.02)
