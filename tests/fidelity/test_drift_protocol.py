"""A short form of `make drift`: the same protocol, fewer streams."""

from __future__ import annotations

import drift
import drift_baselines
import pytest
import watching
from drift_streams import Watch, record, watch_streams
from planted_worlds import Reality

SIZE = drift.Size(
    null_streams=12,
    planted_streams=8,
    causes=1,
    recoveries=1,
    recovery_probes=40,
    reference=360,
    calibration=200,
    served_calibration=300,
)


@pytest.fixture(scope="module")
def watch() -> Watch:
    return watching.watch()


def short(lines):
    return [f"{line.name}: {line.seen}, bar {line.bar}" for line in lines if not line.holds]


def test_nulls_raise_no_alarm(watch):
    assert not short(drift.false_alarms(SIZE, watch))


@pytest.mark.parametrize("name", ["gravity 10.8", "force - 10 %", "delay of one step"])
def test_planted_changes_are_found_in_time(watch, monkeypatch, name):
    monkeypatch.setattr(drift, "PLANTED", [planted for planted in drift.PLANTED if planted.name == name])
    assert not short(drift.delays(SIZE, watch))


def test_causes_are_named(watch):
    assert not short(drift.attribution(SIZE, watch, probes=30))


def test_after_acknowledgement_it_is_quiet_and_watches_on(watch):
    assert not short(drift.recovery(SIZE, watch))


def test_a_line_that_falls_short_is_not_hidden(watch, monkeypatch):
    blind = [drift.Planted("nothing at all", Reality(), 100.0, probes=10)]
    monkeypatch.setattr(drift, "PLANTED", blind)
    assert len(short(drift.delays(SIZE, watch))) == 1


def test_detectors_are_compared_by_false_alarms_and_never_by_hits_alone(watch):
    """A detector that always alarms finds every change at once: only its false alarms show what it is."""
    quiet = drift_baselines._scores(record(watch, 1, 30, 10).probes)[0]
    assert drift_baselines._alarms(drift_baselines.Always(), quiet) == [*range(30)]
    assert "always alarms" in drift_baselines._makers()
    assert watch_streams(watch, streams=10, probes=30, c=1e6, seed=9).found() == 0.0


def test_a_line_shows_other_detectors_beside_it_and_the_one_that_always_alarms(watch, monkeypatch):
    monkeypatch.setattr(drift, "PLANTED", [planted for planted in drift.PLANTED if planted.name == "gravity 12"])
    [line] = drift.delays(SIZE, watch)
    assert line.beside["always"] == "100% @ 1"
    assert line.row(["always"]).rstrip().endswith("100% @ 1")


def test_scoring_a_transition_is_cheap(watch):
    assert drift.scoring(watch).holds
