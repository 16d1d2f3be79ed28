"""A served world for the drift benchmark: a coarse model of CartPole, what users do, and what is watched of both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from planted_worlds import Reality, cartpole_good, epsilon, play_cartpole

from simservice.fidelity.attribution import ServedScorer
from simservice.fidelity.banks import Banks, Calibration, probe_luck
from simservice.fidelity.probe_scores import ProbeStatistics
from simservice.fidelity.support import SupportDistance
from simservice.fidelity.traces import Traces
from simservice.types import Array

USERS = epsilon(0.3, cartpole_good)


@dataclass(frozen=True)
class Served:
    """One version: linear in (observation, action), which is good near the upright pole and bad far from it."""

    coefficients: Array  # (1 + D + A, D) of the change
    support: SupportDistance
    scorer: ServedScorer

    @classmethod
    def fitted(cls, seed: int, episodes: int = 300) -> Served:
        """From episodes of what users usually do."""
        reference = play_cartpole(episodes, USERS, Reality(), np.random.default_rng([seed, 3]))
        assert reference.action is not None
        inputs = _inputs(reference)
        change = np.diff(reference.observation, axis=1)
        valid = reference.valid
        coefficients = np.linalg.lstsq(inputs[valid], change[valid], rcond=None)[0]
        support = SupportDistance.fitted(reference.observation[:, :-1][valid], reference.action[valid])
        fresh = play_cartpole(episodes, USERS, Reality(), np.random.default_rng([seed, 4]))
        return cls(coefficients, support, ServedScorer.fitted(fresh, support.of(fresh)))

    def measure(self, traces: Traces) -> ProbeStatistics:
        """Of each episode."""
        prediction = traces.observation[:, :-1] + _inputs(traces) @ self.coefficients
        return self.scorer.measure(traces, prediction, self.support.of(traces))

    def calibration(self, seed: int, episodes: int) -> Calibration:
        """Of this version, in unchanged reality, under what users usually do."""
        traces = play_cartpole(episodes, USERS, Reality(), np.random.default_rng([seed, 5]))
        return Calibration({"users": self.measure(traces)}, directions=False)

    def broken(self, share: float, seed: int) -> Served:
        """With this relative error in every coefficient."""
        wrong = 1.0 + share * np.random.default_rng([seed, 6]).normal(size=self.coefficients.shape)
        return replace(self, coefficients=self.coefficients * wrong)


def advance_served(banks: Banks, probes: ProbeStatistics, number: int, seed: int) -> None:
    """One more episode of each stream."""
    numbers = (seed * 1000 + np.arange(banks.streams)) * 10_000 + number
    code = np.full(banks.streams, banks.calibration.code("users"))
    banks.update(probes, code, probe_luck(numbers, banks.calibration.luck_shape))


def _inputs(traces: Traces) -> Array:
    assert traces.action is not None
    ones = np.ones((*traces.valid.shape, 1))
    return np.concatenate([ones, traces.observation[:, :-1], traces.action], axis=2)
