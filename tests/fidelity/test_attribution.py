"""Why the numbers moved, row by row."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from drift_served import USERS, Served
from planted_worlds import Reality, play_cartpole

from simservice.errors import InvalidInput
from simservice.fidelity.attribution import (
    ACTIONS,
    POLICY_SHIFT,
    SERVED_MODEL,
    Cause,
    ServedScorer,
    attribute,
    attribute_readings,
)
from simservice.fidelity.drift import Detector, DriftReading, DriftState


def reading(*alarmed):
    return DriftReading(
        state=DriftState.DRIFT if alarmed else DriftState.OK,
        log10_evidence={},
        log10_threshold=6.0,
        alarmed=alarmed,
        alarm_probe=None,
        probes=1,
        epoch=0,
        counted=True,
    )


def test_every_combination_has_its_row():
    rows = {
        (reality, served, outside): attribute(reality_alarm=reality, served_up=served, outside_support=outside).cause
        for reality, served, outside in product((False, True), repeat=3)
    }
    assert rows == {
        (True, True, False): Cause.REALITY,
        (True, True, True): Cause.REALITY,
        (True, False, False): Cause.RIG,
        (True, False, True): Cause.RIG,
        (False, True, False): Cause.SERVED_MODEL,
        (False, True, True): Cause.POLICY,
        (False, False, True): Cause.POLICY_SHIFT,
        (False, False, False): Cause.NOTHING,
    }
    assert set(ACTIONS) == set(Cause)


def test_it_is_read_from_two_detectors():
    assert attribute_readings(reading("reward"), reading(SERVED_MODEL)).cause is Cause.REALITY
    assert attribute_readings(reading(), reading(SERVED_MODEL)).cause is Cause.SERVED_MODEL
    assert attribute_readings(reading(), reading(POLICY_SHIFT)).cause is Cause.POLICY_SHIFT


@pytest.mark.parametrize(
    ("share", "start", "expected"),
    [
        (0.0, (0, 0, 0, 0), ()),
        (0.05, (0, 0, 0, 0), (SERVED_MODEL,)),
        (0.0, (0.4, 0, 0, 0), (POLICY_SHIFT,)),
        (0.0, (0, 0, 0, 1.5), (SERVED_MODEL, POLICY_SHIFT)),
    ],
)
def test_a_broken_model_and_an_adventurous_policy_are_told_apart(share, start, expected):
    served = Served.fitted(0)
    detector = Detector(served.calibration(0, episodes=400))
    broken = served.broken(share, 1) if share else served
    probes = broken.measure(play_cartpole(30, USERS, Reality(), np.random.default_rng(2), start))
    for number in range(30):
        found = detector.update(number, probes[number : number + 1], "users")
    assert set(found.alarmed) == set(expected)


def test_a_reference_that_never_changes_is_refused():
    still = play_cartpole(5, USERS, Reality(), np.random.default_rng(0))
    still.observation[:] = 1.0
    with pytest.raises(InvalidInput, match="never changes"):
        ServedScorer.fitted(still, np.zeros(still.valid.shape))
