"""A whole evaluation of the toy, whose reality is known: a faithful world is trusted, a wrong one is not, and why."""

from __future__ import annotations

import numpy as np
import pytest
import toy_reality

from simservice.data.collect import RealStepCounter, collect_episodes
from simservice.errors import InvalidInput, RealStepBudgetExceeded
from simservice.fidelity.metric import metrics
from simservice.monitor.evaluation.evaluate import evaluate
from simservice.monitor.reality import ProbeConfig


@pytest.fixture(scope="module", autouse=True)
def reality():
    with toy_reality.registered() as env_id:
        yield env_id


def config(**changes) -> ProbeConfig:
    fields = {"env_id": toy_reality.ENV_ID, "episodes": 8, "horizon": 20, "windows": 60, "copies": 2, "lanes": 128}
    return ProbeConfig(**{**fields, **changes})


@pytest.fixture(scope="module")
def recorded(reality):
    return collect_episodes(reality, episodes=60, seed=5, policy="random", max_steps=60)


@pytest.fixture(scope="module")
def faithful(toy_server, recorded):
    return evaluate(toy_server.address, "toy", config(), training=recorded, splits=10)


@pytest.fixture(scope="module")
def wrong(toy_server, recorded):
    """The world stays, reality has moved."""
    moved = config(attributes={"growth": 1.15})
    return evaluate(toy_server.address, "toy", moved, training=recorded, splits=10)


def test_a_world_that_is_reality_is_trusted(faithful):
    assert faithful.page.verdict.grade in ("trustworthy", "with care"), faithful.page.verdict
    marks = {line.key: line.mark for line in faithful.page.lines}
    assert len(marks) == 8
    assert marks["trust_horizon"] == marks["ranking"] == marks["signals"] == marks["drift"] == "good"
    assert marks["return_gap"] != "bad"
    assert faithful.scores["error_ratio_10"].value < 1e-5
    assert faithful.scores["action_effect_slope_ratio"].value == pytest.approx(1.0, abs=1e-4)


def test_a_wrong_world_is_not_and_the_reasons_are_told(wrong):
    assert wrong.page.verdict.grade == "untrustworthy"
    told = " ".join(wrong.page.verdict.reasons)
    assert "fewer than the 15 asked for" in told
    assert "reality has changed since its data was recorded (dynamics" in told


def test_every_registered_metric_is_measured_with_its_floor(faithful):
    assert set(faithful.scores) == set(faithful.floors) == set(metrics())
    halves = [name for name, metric in metrics().items() if metric.floor == "halves"]
    assert all(faithful.floors[name].splits > 0 for name in halves)


def test_the_suite_holds_enough_independent_policies_to_rank(faithful):
    assert faithful.ranking.units == 10
    assert faithful.scores["policy_rank_spearman"].value > 0.8


def test_a_given_policy_is_ranked_once_however_often_it_is_mixed(toy_server):
    def still(observation):
        return np.ones(len(observation), dtype=np.int64)

    found = evaluate(toy_server.address, "toy", config(), policies={"mine": still}, splits=2)
    assert {"mine", "mine-epsilon0.3"} <= set(found.evidence.recorded)
    assert found.ranking.units == 11


def test_without_its_data_drift_is_unknown_and_not_good(toy_server):
    page = evaluate(toy_server.address, "toy", config(), splits=2).page
    [drift] = [line for line in page.lines if line.key == "drift"]
    assert drift.mark == "unknown"
    assert "not at hand" in drift.note
    assert any("not at hand" in reason for reason in page.verdict.reasons)


def test_real_steps_are_counted_and_kept_within_the_budget(toy_server, recorded, faithful):
    counter = RealStepCounter()
    again = evaluate(toy_server.address, "toy", config(), training=recorded, splits=2, counter=counter)
    assert again.real_steps == counter.steps == faithful.real_steps
    suite_alone = sum(len(one) for played in again.evidence.recorded.values() for one in played)
    tight = RealStepCounter(budget=suite_alone + 1400)
    found = evaluate(toy_server.address, "toy", config(), training=recorded, splits=2, counter=tight)
    assert tight.steps <= suite_alone + 1400
    assert {line.key: line.mark for line in found.page.lines}["drift"] == "unknown"
    with pytest.raises(RealStepBudgetExceeded):
        evaluate(toy_server.address, "toy", config(), counter=RealStepCounter(budget=50))


def test_another_environment_than_the_worlds_is_refused(toy_server):
    with pytest.raises(InvalidInput, match="observation space"):
        evaluate(toy_server.address, "toy", config(env_id="CartPole-v1"))
