"""The detector's states, its memory, and what repeats, disorder and restarts do to it: nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from drift_streams import Recording, record, replay
from planted_worlds import Reality
from watching import watch

from simservice.errors import InvalidInput
from simservice.fidelity.banks import Calibration
from simservice.fidelity.drift import Detector, DriftConfig, DriftState
from simservice.fidelity.probe_numbers import ProbeNumbers

CALM, CHANGED = 25, Reality(force=0.9)


@pytest.fixture(scope="module")
def calm() -> Recording:
    return record(watch(), 2, CALM, 3)


@pytest.fixture(scope="module")
def changed() -> Recording:
    return record(watch(), 2, 20, 4, CHANGED)


def feed(detector, recording, first=0, stream=0):
    return [
        detector.update(first + number, probe, recording.policy[number])
        for number, probe in enumerate(recording.stream(stream))
    ]


def test_it_is_calm_without_a_change_and_goes_through_suspicion_to_drift(calm, changed):
    detector = Detector(watch().calibration)
    assert {reading.state for reading in feed(detector, calm)} == {DriftState.OK}
    states = [reading.state for reading in feed(detector, changed, first=CALM)]
    assert states[-1] is DriftState.DRIFT
    assert DriftState.SUSPECT in states[: states.index(DriftState.DRIFT)]
    reading = detector.reading()
    assert reading.alarmed == ("dynamics",)
    assert reading.alarm_probe == CALM + states.index(DriftState.DRIFT)
    assert reading.log10_evidence["dynamics"] >= reading.log10_threshold == pytest.approx(np.log10(3e6))


def test_an_alarm_stays_though_reality_comes_back(calm, changed):
    detector = Detector(watch().calibration)
    feed(detector, changed)
    assert feed(detector, calm, first=100)[-1].state is DriftState.DRIFT


def test_acknowledged_it_waits_for_a_calibration_and_then_begins_at_nothing(calm, changed):
    detector = Detector(watch().calibration)
    feed(detector, changed)
    known = detector.acknowledge()
    assert (known.state, known.epoch, known.alarmed) == (DriftState.ACKNOWLEDGED, 1, ())
    assert not detector.update(500, calm.stream(0)[0], "random").counted
    fresh = detector.recalibrate(watch().calibration)
    assert (fresh.state, fresh.probes, set(fresh.log10_evidence.values())) == (DriftState.OK, 0, {0.0})
    late = detector.update(5, calm.stream(0)[5], "random")
    assert not late.counted  # of the epoch before
    assert feed(detector, calm, first=600)[-1].state is DriftState.OK
    assert feed(detector, changed, first=700)[-1].state is DriftState.DRIFT  # a second change


def test_only_what_was_acknowledged_is_calibrated_anew(calm):
    with pytest.raises(InvalidInput, match="acknowledge"):
        Detector(watch().calibration).recalibrate(watch().calibration)


def test_repeated_probes_count_once(calm):
    once, twice = Detector(watch().calibration), Detector(watch().calibration)
    feed(once, calm)
    for number, probe in enumerate(calm.stream(0)):
        assert twice.update(number, probe, calm.policy[number]).counted
        assert not twice.update(number, probe, calm.policy[number]).counted
    feed(twice, calm)
    assert twice.to_json() == once.to_json()


def test_probes_count_in_any_order(calm):
    detector = Detector(watch().calibration)
    for number in np.random.default_rng(0).permutation(CALM).tolist():
        assert detector.update(number, calm.stream(0)[number], calm.policy[number]).counted
    assert detector.reading().probes == CALM


def test_a_restart_at_any_probe_changes_nothing(calm, changed):
    straight = Detector(watch().calibration)
    feed(straight, calm), feed(straight, changed, first=CALM)
    broken = Detector(watch().calibration)
    for number, probe in enumerate([*calm.stream(0), *changed.stream(0)]):
        broken = Detector.from_json(broken.to_json(), watch().calibration)
        broken.update(number, probe, [*calm.policy, *changed.policy][number])
    assert broken.to_json() == straight.to_json()


def test_many_streams_at_once_are_the_same_detectors(changed):
    alarms = replay(watch().calibration, changed, 1e6)
    for stream in (0, 1):
        detector = Detector(watch().calibration)
        for row, probe in enumerate(changed.stream(stream)):
            detector.update(int(changed.number[row, stream]), probe, changed.policy[row])
        assert detector.reading().alarm_probe == changed.number[alarms.probe["dynamics"][stream] - 1, stream]


def test_a_state_is_refused_for_another_calibration_or_when_it_is_none(calm):
    detector = Detector(watch().calibration)
    feed(detector, calm)
    other = Calibration({name: probes[:150] for name, probes in watch().calibration.by_policy.items()})
    with pytest.raises(InvalidInput, match="not the one"):
        Detector.from_json(detector.to_json(), other)
    kept = json.loads(detector.to_json())
    broken = [
        "{",
        "[]",
        json.dumps({**kept, "format": 99}),
        json.dumps({**kept, "state": "fine"}),
        json.dumps({**kept, "seen": [[5, 1]]}),
        json.dumps({**kept, "banks": {**kept["banks"], "processes": {}}}),
        json.dumps({**kept, "banks": {**kept["banks"], "designs": [1.0]}}),
    ]
    for text in broken:
        with pytest.raises(InvalidInput, match="state"):
            Detector.from_json(text, watch().calibration)


def test_it_takes_one_probe_with_a_number(calm):
    detector = Detector(watch().calibration)
    with pytest.raises(InvalidInput, match="number"):
        detector.update(-1, calm.stream(0)[0])
    with pytest.raises(InvalidInput, match="one probe"):
        detector.update(0, calm.probes[0])
    with pytest.raises(InvalidInput, match="greater than 1"):
        Detector(watch().calibration, DriftConfig(mean_probes_to_false_alarm=1.0))


def test_a_calibration_of_too_few_probes_is_refused():
    few = {name: probes[:99] for name, probes in watch().calibration.by_policy.items()}
    with pytest.raises(InvalidInput, match="99 probes"):
        Calibration(few)
    with pytest.raises(InvalidInput, match="no policy"):
        Calibration({})


def test_what_can_be_detected_is_said_before_anything_happens():
    detector = Detector(watch().calibration)
    assert detector.detectable_shift(100) == pytest.approx(np.sqrt(2 * np.log(3e6) / 100))


def test_numbers_are_kept_as_ranges():
    numbers = ProbeNumbers()
    order = np.random.default_rng(2).permutation(200).tolist()
    assert all(numbers.add(number) for number in order)
    assert not any(numbers.add(number) for number in order)
    assert (numbers.ranges, numbers.end) == ([[0, 200]], 200)
    assert numbers.add(300)
    assert ProbeNumbers(numbers.ranges).ranges == [[0, 200], [300, 301]]
    with pytest.raises(ValueError, match="sorted"):
        ProbeNumbers([[3, 5], [4, 9]])
