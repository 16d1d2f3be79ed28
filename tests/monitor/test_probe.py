"""One probe of a served world: the toy, whose reality is known exactly, and whose reality can be changed."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import toy_reality

from simservice.data.collect import RealStepCounter
from simservice.errors import InvalidInput, RealStepBudgetExceeded, ServerUnavailable, UnknownWorld
from simservice.fidelity.metric import metrics
from simservice.monitor.probe import probe
from simservice.monitor.reality import ProbeConfig
from simservice.monitor.watch import watch
from simservice.telemetry import FidelityMetrics, exposition


@pytest.fixture(scope="module", autouse=True)
def reality():
    with toy_reality.registered() as env_id:
        yield env_id


def config(**changes) -> ProbeConfig:
    fields = {"env_id": toy_reality.ENV_ID, "episodes": 12, "horizon": 20, "windows": 80, "copies": 2, "lanes": 64}
    return ProbeConfig(**{**fields, **changes})


@pytest.fixture(scope="module")
def faithful(toy_server, reality):
    return probe(toy_server.address, "toy", config())


def test_a_world_that_is_reality_is_trusted_over_the_whole_horizon(faithful):
    assert faithful.trust_horizon == 20
    assert np.nanmax(faithful.curve.error) < 1e-5
    assert faithful.scores["reward_error_ratio"].value < 1e-5
    assert faithful.scores["termination_f1_ratio"].value == 1.0
    assert faithful.returns.mean.lower <= 0 <= faithful.returns.mean.upper
    assert set(faithful.scores) == set(metrics())


def test_every_real_and_imagined_step_is_counted(toy_server, faithful):
    counter = RealStepCounter()
    again = probe(toy_server.address, "toy", config(), counter=counter)
    assert again.real_steps == counter.steps == faithful.real_steps
    assert again.real_episodes == counter.resets == 24
    assert again.imagined_steps > again.curve.windows * 2 * 20


def test_the_same_probe_gives_the_same_figures(toy_server, faithful):
    again = probe(toy_server.address, "toy", config())
    assert again.data_hash == faithful.data_hash
    np.testing.assert_array_equal(again.curve.error, faithful.curve.error)
    assert again.returns == faithful.returns


def test_when_reality_changes_the_figures_fall(toy_server, faithful):
    changed = probe(toy_server.address, "toy", config(attributes={"growth": 1.15}))
    assert changed.trust_horizon < 10 < faithful.trust_horizon
    assert changed.curve.error[9] > 0.1
    assert changed.scores["reward_error_ratio"].value > 0.01
    assert changed.attributes == {"growth": 1.15}


def test_the_luck_of_a_noisy_world_is_averaged_over_copies(toy_server):
    noisy = {"attributes": {"growth": 0.95}, "windows": 40, "horizon": 3, "max_episode_steps": 40}
    one, many = (probe(toy_server.address, "noisy", config(copies=copies, **noisy)) for copies in (1, 16))
    assert many.curve.error[0] < one.curve.error[0] / 2


def test_a_given_policy_is_part_of_the_suite(toy_server):
    report = probe(
        toy_server.address, "toy", config(), policy=lambda observation: np.ones(len(observation), dtype=np.int64)
    )
    assert [gap.policy for gap in report.returns.policies] == ["policy", "policy-epsilon0.3", "random", "sticky"]
    assert report.returns.high >= 50.0


def test_what_is_published_is_what_was_found(faithful):
    published = FidelityMetrics()
    published.publish(faithful.reading())
    page = exposition(published.registry)
    version = f'model_version="{faithful.model_version}",world="toy"'
    assert f"simservice_trust_horizon_steps{{{version}}} 20.0" in page
    assert f'simservice_fidelity_error_ratio{{horizon="20",{version}}}' in page
    assert "simservice_return_gap_ratio{" in page
    assert 'simservice_fidelity_reference_probes{world="toy"} 24.0' in page
    assert 'simservice_served_horizon_steps{world="toy"} 200.0' in page


def test_a_report_is_json_without_nan(faithful):
    text = json.dumps(faithful.to_json(), allow_nan=False)
    assert json.loads(text)["trust_horizon_steps"]["0.3"] == 20


def test_another_environment_than_the_worlds_is_refused_before_a_real_step(toy_server):
    counter = RealStepCounter()
    with pytest.raises(InvalidInput, match="env: CartPole-v1 has the observation space"):
        probe(toy_server.address, "toy", config(env_id="CartPole-v1"), counter=counter)
    assert counter.steps == 0


def test_a_wrong_world_or_address_says_so(toy_server):
    with pytest.raises(UnknownWorld, match="'tay'"):
        probe(toy_server.address, "tay", config())


def test_a_probe_frees_its_lanes_even_when_it_fails(toy_server):
    before = toy_server.service.replicas[0].reading().lanes_in_use
    with pytest.raises(RealStepBudgetExceeded):
        probe(toy_server.address, "toy", config(), counter=RealStepCounter(budget=50))
    assert toy_server.service.replicas[0].reading().lanes_in_use == before


def test_a_watch_goes_on_when_the_service_dies(toy_server):
    stop, published = threading.Event(), FidelityMetrics()
    errors = []

    def run(number, counter):
        if number == 1:
            stop.set()
        address = toy_server.address if number == 0 else "127.0.0.1:1"
        try:
            return probe(address, "toy", config(episodes=3, windows=20), counter=counter)
        except ServerUnavailable as error:
            errors.append(error)
            raise

    state = watch("toy", run, published, every_s=0.0, stop=stop)
    assert (state.succeeded, state.failed, len(errors)) == (1, 1, 1)
    assert "last_success_timestamp_seconds{" in exposition(published.registry)
