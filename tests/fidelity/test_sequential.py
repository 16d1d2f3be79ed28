"""Bets on p-values keep their promise, against answers that are known."""

from __future__ import annotations

import numpy as np
import pytest

from simservice.fidelity.sequential import (
    BETS,
    advance,
    bets,
    conformal_p_values,
    detectable_shift,
    evidence,
    probes_until_alarm,
)


def test_every_bet_has_mean_at_most_one_when_nothing_has_changed():
    """Over a fine grid of p-values, of which the largest bet needs the tail: the mean is an integral."""
    p = (np.arange(400_000) + 0.5) / 400_000
    assert np.all(bets(p).mean(axis=0) <= 1.0 + 1e-4)
    assert np.all(bets(p).mean(axis=0) > 0.9)


def test_a_small_p_value_wins_and_a_large_one_loses_every_bet():
    assert np.all(bets(np.array(1e-4)) > 1)
    assert np.all(bets(np.array(0.99)) < 1)
    assert np.isfinite(bets(np.array([0.0, 1.0]))).all()


def test_a_score_that_is_not_there_bets_nothing():
    np.testing.assert_array_equal(bets(np.array(np.nan)), np.ones(BETS))


def test_evidence_grows_by_at_most_one_a_probe_on_average():
    """M_t - t has mean at most 0 under uniform p-values: the whole guarantee, without a simulation of worlds."""
    generator = np.random.default_rng(0)
    processes = np.zeros((4_000, 2, BETS))
    for _ in range(25):
        processes = advance(processes, generator.random((4_000, 2)))
    tame = processes[:, :, :3]  # whose means settle within this many streams
    assert tame.mean() == pytest.approx(25, rel=0.1)
    assert np.mean(evidence(processes) >= 1000) <= 25 / 1000


def test_evidence_never_overflows():
    processes = np.zeros((1, 1, BETS))
    for _ in range(300):
        processes = advance(processes, np.full((1, 1), 1e-300))
    assert np.isfinite(evidence(processes)).all()


def test_p_values_are_uniform_among_their_like_and_never_smaller_than_can_be_backed():
    generator = np.random.default_rng(1)
    calibration = np.sort(generator.normal(size=999))
    p = conformal_p_values(generator.normal(size=50_000), calibration, generator.random(50_000))
    assert np.abs(np.quantile(p, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.04
    assert conformal_p_values(np.array([99.0]), calibration, np.array([0.0])) == pytest.approx(2 / 1000, rel=0.02)
    assert np.isnan(conformal_p_values(np.array([np.nan]), calibration, np.array([0.5])))


def test_equal_scores_share_their_ranks_by_luck():
    p = conformal_p_values(np.zeros(10_001), np.zeros(99), np.linspace(0, 0.9999, 10_001))
    assert p.mean() == pytest.approx(0.5, abs=0.01)


def test_the_planning_rule_can_be_read_both_ways():
    assert probes_until_alarm(0.25, 1e6) == pytest.approx(442, abs=1)
    assert detectable_shift(probes_until_alarm(0.4, 1e6), 1e6) == pytest.approx(0.4)
