"""The ways of measuring that have cost somebody a wrong number, walked into on purpose: each must fail, or show."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import drift_baselines
import numpy as np
import pytest
from drift_streams import CARTPOLE, record
from planted_worlds import Reality
from watching import watch

from simservice.errors import InvalidInput
from simservice.fidelity.banks import UNKNOWN_POLICY, Banks, probe_luck
from simservice.fidelity.bootstrap import bounds, resampled_means
from simservice.fidelity.distances import c2st, classifier_accuracy, tuples
from simservice.fidelity.drift import Detector
from simservice.fidelity.metric import metrics
from simservice.fidelity.monitor_model import Transitions
from simservice.fidelity.outcomes import termination_scores
from simservice.fidelity.ranking import LEAST_UNITS, MMRV_CONVENTION, mmrv, policy_ranking
from simservice.fidelity.states import horizon_error_curve, trust_horizon
from simservice.fidelity.traces import Traces


def walks(windows=400, steps=40, per_episode=4, seed=0):
    generator = np.random.default_rng(seed)
    none = np.zeros((windows, steps), dtype=bool)
    return Traces(
        observation=np.cumsum(generator.normal(size=(windows, steps + 1, 2)), axis=1),
        reward=np.zeros((windows, steps)),
        terminated=none,
        truncated=none,
        valid=~none,
        unit=np.arange(windows) // per_episode,
    )


def test_trap_1_a_classifier_that_sees_other_steps_of_an_episode_is_refused_and_one_step_each_tells_nothing_apart():
    generator = np.random.default_rng(0)
    levels = generator.normal(size=(200, 6))  # what is particular to an episode
    rows, unit = np.repeat(levels, 10, axis=0), np.repeat(np.arange(200), 10)
    side = np.repeat(np.arange(200) % 2 == 0, 10)
    with pytest.raises(InvalidInput, match="one step of each episode"):
        c2st(rows, side, unit)
    accuracy = [classifier_accuracy(walks(seed=2 * n), walks(seed=2 * n + 1)).value for n in range(20)]
    assert abs(np.mean(accuracy) - 0.5) < 0.03
    assert len(np.unique(tuples(walks())[1])) == len(tuples(walks())[1]) == 100


def test_trap_1_a_real_difference_is_found_by_the_same_test():
    real = walks()
    assert classifier_accuracy(real, replace(walks(seed=1), observation=2 * walks(seed=1).observation)).lower > 0.5


def test_trap_2_intervals_of_transitions_are_far_too_narrow():
    """Every metric that resamples says what; and resampling steps of an episode would claim too much."""
    generator = np.random.default_rng(1)
    shared = generator.normal(size=40)
    steps = np.repeat(shared, 50) + 0.1 * generator.normal(size=2000)
    naive = bounds(resampled_means(steps), float(steps.mean()))
    honest = bounds(resampled_means(steps.reshape(40, 50).mean(axis=1)), float(steps.mean()))
    assert (honest[1] - honest[0]) > 5 * (naive[1] - naive[0])
    assert {metric.unit for metric in metrics().values()} == {"episode", "policy"}
    real = walks(per_episode=20)
    wrong = replace(real, observation=real.observation + np.repeat(generator.normal(size=(20, 1, 2)), 20, axis=0))
    curve = horizon_error_curve(real, wrong)
    as_if = horizon_error_curve(replace(real, unit=np.arange(400)), replace(wrong, unit=np.arange(400)))
    assert curve.episodes == 20
    assert np.all(curve.upper - curve.lower > 1.5 * (as_if.upper - as_if.lower))


def test_trap_3_autoreset_frames_are_refused_and_a_time_limit_is_no_termination():
    real = walks()
    ended = real.terminated.copy()
    ended[3, 10] = True
    for kind in ("terminated", "truncated"):
        with pytest.raises(InvalidInput, match="autoreset frames"):
            replace(real, **{kind: ended})
    cut = replace(real, valid=real.valid & (np.arange(40) < 1), truncated=np.arange(40) == np.zeros((400, 1)))
    assert math.isnan(termination_scores(cut, cut).f1.value)  # nothing terminated: unknown, neither 0 nor 1


def test_trap_3_a_reset_frame_never_reaches_the_monitor_model():
    """The frame after an end belongs to the next episode: as a transition it would be the largest residual of all."""
    traces = CARTPOLE.play(50, "random", Reality(angle=2), np.random.default_rng(0))
    assert traces.terminated.any()
    assert len(Transitions.of(traces).reward) == traces.valid.sum() < traces.valid.size
    with pytest.raises(InvalidInput, match="autoreset frames"):
        replace(traces, valid=np.ones_like(traces.valid))


def test_trap_4_the_sides_of_mmrv_cannot_be_swapped_by_accident_and_its_convention_is_written_down():
    real, imagined = np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.8, 0.3])
    assert mmrv(real=real, imagined=imagined) == pytest.approx((0.0 + 0.4 + 0.4) / 3)
    assert mmrv(real=imagined, imagined=real) == pytest.approx((0.0 + 0.5 + 0.5) / 3)  # not symmetric
    with pytest.raises(TypeError):
        mmrv(real, imagined)
    assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(mmrv).parameters.values())
    assert "R real, S imagined" in MMRV_CONVENTION == metrics()["policy_mmrv_ratio"].convention
    tied = mmrv(real=np.array([0.0, 1.0]), imagined=np.array([5.0, 5.0]))
    assert tied == pytest.approx(0.5)  # a tie hides an order once, seen from the better policy


def test_trap_5_a_rank_correlation_of_few_policies_is_not_printed():
    generator = np.random.default_rng(2)

    def suite(count):
        return {f"policy {n}": generator.normal(10.0 * n, 1.0, 20) for n in range(count)}

    few, enough = suite(LEAST_UNITS - 1), suite(LEAST_UNITS)
    hidden = policy_ranking(few, few)
    assert math.isnan(hidden.pearson.value) and math.isnan(hidden.spearman.value) and math.isnan(hidden.mmrv.value)
    assert hidden.permutation_floor == 1 / math.factorial(7)
    shown = policy_ranking(enough, enough)
    assert (shown.spearman.value, shown.units) == (1.0, 8)
    assert shown.pearson.lower < 1.0
    checkpoints = policy_ranking(enough, enough, runs={"policy 0": "run", "policy 1": "run"})
    assert (checkpoints.units, math.isnan(checkpoints.pearson.value)) == (7, True)  # of one run: one unit
    with pytest.raises(InvalidInput, match="policies"):
        policy_ranking(enough, few)


def test_trap_5_one_policy_that_makes_the_correlation_is_shown_by_leaving_it_out():
    generator = np.random.default_rng(3)
    real = {f"policy {n}": np.full(5, generator.normal()) for n in range(9)}
    imagined = {name: np.full(5, generator.normal()) for name in real}
    real["far"], imagined["far"] = np.full(5, 50.0), np.full(5, 50.0)
    ranking = policy_ranking(real, imagined)
    assert ranking.pearson.value > 0.98
    assert ranking.pearson_drop_one[0] < 0.7


def test_trap_6_a_curve_that_only_survivors_are_left_of_says_so():
    real, step = walks(), np.arange(40)

    def surviving(count):
        length = np.where(np.arange(400) < 400 - count, 5, 40)[:, None]
        return replace(real, valid=step < length, terminated=(step == length - 1) & (length < 40))

    some, few = surviving(12), surviving(5)
    assert horizon_error_curve(some, some).alive[10] == pytest.approx(12 / 400)
    curve = horizon_error_curve(few, few)
    assert np.isnan(curve.error[10])  # too few to say anything
    assert trust_horizon(curve) == 5


def test_trap_7_the_error_is_divided_by_what_reality_spreads_to_at_that_lead():
    """Over the one-step spread the far error of a useless world is huge, over the total spread the near one small."""
    real = walks(windows=4000, per_episode=1)
    average = np.broadcast_to(real.observation.mean(axis=0), real.observation.shape)
    curve = horizon_error_curve(real, replace(real, observation=average), resamples=2)
    np.testing.assert_allclose(curve.error, 1.0, rtol=1e-6)
    error = np.sqrt(np.mean((average - real.observation)[:, 1:] ** 2, axis=(0, 2)))
    one_step, total = np.diff(real.observation, axis=1).std(), real.observation.std()
    assert error[-1] / one_step > 5
    assert error[0] / total < 0.5


def test_trap_8_a_policy_never_calibrated_is_held_against_every_policy_that_was():
    """Against the calibration of one policy alone, another's probes look like a changed world."""
    calibration = watch().calibration
    assert calibration.code("somebody's") == UNKNOWN_POLICY
    assert len(calibration.by_policy) >= 3
    banks = {code: Banks(calibration) for code in (UNKNOWN_POLICY, calibration.code("good"))}
    recording = record(watch(), 1, 25, 21, policies=["random"])
    for number, probe in enumerate(recording.probes):
        for code, bank in banks.items():
            bank.update(probe, np.array([code]), probe_luck(np.array([number]), calibration.luck_shape))
    honest, mistaken = (sum(float(e[0]) for e in bank.evidence().values()) for bank in banks.values())
    assert mistaken > 100 * honest


def test_trap_9_the_comparison_prints_false_alarms_and_delay_and_a_dummy_that_wins_by_hits(capsys, monkeypatch):
    monkeypatch.setattr(drift_baselines, "BEFORE", 20)
    monkeypatch.setattr(drift_baselines, "AFTER", 10)
    monkeypatch.setattr(drift_baselines.Watch, "fitted", lambda *_, **__: watch())
    table = drift_baselines.compare(3)
    assert table["always alarms"]["gravity 12"] == "100% @ 1"
    assert float(table["always alarms"]["false alarms / 1000"]) == 1000
    assert float(table["ours, c = 1e6"]["false alarms / 1000"]) == 0
    assert all("false alarms / 1000" in row for row in table.values())
    assert "always alarms" in capsys.readouterr().out


def test_trap_10_without_data_nothing_is_green():
    """A detector that saw no probe says so, and a metric without evidence is unknown, not perfect."""
    reading = Detector(watch().calibration).reading()
    assert (reading.probes, reading.counted) == (0, False)
    real = walks()
    nothing = replace(real, valid=real.valid & (np.arange(400) < 1)[:, None] & (np.arange(40) < 1))
    for name, metric in metrics().items():
        score = metric.measure(nothing, nothing)
        assert math.isnan(score.value) or score.units < 2 or score.value == 0 != metric.perfect, name
