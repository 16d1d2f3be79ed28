"""The monitor model and the scores of a probe: as exact as the world is, and honest about the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drift_streams import CARTPOLE, PENDULUM, joined_traces
from planted_worlds import Reality
from watching import watch

from simservice.errors import InvalidInput
from simservice.fidelity.monitor_model import Transitions, fit_monitor
from simservice.fidelity.probe_scores import ProbeScorer


def probes(count, reality=None, policy="epsilon-0.3", seed=0):
    return CARTPOLE.play(count, policy, reality or Reality(), np.random.default_rng(seed))


def test_of_a_deterministic_world_little_more_than_rounding_is_left_over():
    model = watch().scorer.model
    steps = Transitions.of(probes(200))
    mean, deviation = model.dynamics.predict(model.inputs(np.concatenate([steps.observation, steps.action], axis=1)))
    error = np.abs(mean - (steps.following - steps.observation))
    assert np.quantile(error, 0.95) < 1e-4
    assert np.quantile(error / deviation, 0.5) < 1.5


def test_its_deviation_is_the_noise_of_a_noisy_world():
    parts = [probes(500, Reality(noise=0.1), name) for name in ("random", "good")]
    model, _ = fit_monitor(joined_traces(parts))
    steps = Transitions.of(probes(300, Reality(noise=0.1), seed=5))
    deviation = model.dynamics.predict(model.inputs(np.concatenate([steps.observation, steps.action], axis=1)))[1]
    np.testing.assert_allclose(np.median(deviation, axis=0)[[1, 3]], 0.1, rtol=0.1)
    residual = model.residuals(steps).dynamics[:, [1, 3]]
    np.testing.assert_allclose(residual.std(axis=0), 1.0, atol=0.1)


def test_it_expects_rewards_and_ends():
    traces = PENDULUM.play(600, "", Reality(), np.random.default_rng(0))
    _, residuals = fit_monitor(traces)
    assert np.median(np.abs(residuals.reward)) < 1.5
    fell = Transitions.of(probes(400, policy="random"))
    surprise = watch().scorer.model.residuals(fell).termination[:, 0]
    assert fell.terminated.sum() > 20
    assert np.median(np.abs(surprise[fell.terminated])) < 3
    early = Transitions.of(probes(400, Reality(angle=8), "random"))
    assert np.median(watch().scorer.model.residuals(early).termination[early.terminated]) > 10


def test_a_reward_that_never_varies_is_no_news_where_nothing_else_is_known():
    changed = Transitions.of(probes(50, Reality(length=1.5)))
    np.testing.assert_allclose(watch().scorer.model.residuals(changed).reward, 0.0, atol=1e-6)


def test_traces_without_actions_or_too_few_episodes_are_refused():
    with pytest.raises(InvalidInput, match="what was done"):
        Transitions.of(replace(probes(5), action=None))
    with pytest.raises(InvalidInput, match="49 episodes"):
        fit_monitor(probes(49))


def test_scores_do_not_tell_one_policy_from_another_but_a_changed_world():
    """Ranked within strata of doubt, the mean rank of a policy never seen stays what it was."""
    scorer = ProbeScorer.fitted(joined_traces([probes(150, policy=name) for name in CARTPOLE.policies]))
    usual, other, changed = (
        scorer.measure(probes(300, reality, policy, 7)).scores["dynamics"][:, 0].mean()
        for reality, policy in ((None, "good"), (None, "epsilon-0.6"), (Reality(gravity=12), "good"))
    )
    assert abs(other - usual) < 1.0 < changed - usual


def test_a_probe_is_one_row_whatever_its_company():
    traces = probes(6, policy="random")
    together = watch().scorer.measure(traces)
    names = ("observation", "action", "reward", "terminated", "truncated", "valid", "unit")
    alone = watch().scorer.measure(replace(traces, **{name: getattr(traces, name)[2:3] for name in names}))
    for kind in together.scores:
        np.testing.assert_allclose(alone.scores[kind][0], together.scores[kind][2], atol=2e-3)
        np.testing.assert_allclose(alone.moment[kind][0], together.moment[kind][2], rtol=1e-6, atol=1e-6)


def test_a_probe_without_a_step_is_refused():
    traces = probes(3)
    with pytest.raises(InvalidInput, match="no step"):
        watch().scorer.measure(replace(traces, valid=traces.valid & (np.arange(3) > 0)[:, None]))
