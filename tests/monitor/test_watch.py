"""The watch outlives whatever it watches, and silence never looks like health."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from simservice.data.collect import RealStepCounter
from simservice.errors import ServerUnavailable
from simservice.monitor.watch import watch
from simservice.telemetry import FidelityMetrics, FidelityReading, exposition


@dataclass
class Found:
    """As much of a report as the watch looks at."""

    number: int
    finished_at: float = 1000.0

    def reading(self) -> FidelityReading:
        return FidelityReading(world="toy", model_version="v1", trust_horizon_steps=self.number)


def watching(run, rounds: int, budget: int | None = None):
    """Watches for so many rounds; the state and what is published."""
    stop, metrics, counter = threading.Event(), FidelityMetrics(), RealStepCounter(budget)
    done = []

    def counted(number, counter):
        done.append(number)
        if len(done) == rounds:
            stop.set()
        return run(number, counter)

    state = watch("toy", counted, metrics, every_s=0.0, stop=stop, counter=counter)
    return state, exposition(metrics.registry), done


def test_the_newest_probe_is_published_and_real_steps_add_up():
    def run(number, counter):
        counter.spend(100)
        return Found(number + 40)

    state, page, _ = watching(run, rounds=3)
    assert (state.succeeded, state.failed) == (3, 0)
    assert 'simservice_trust_horizon_steps{model_version="v1",world="toy"} 42.0' in page
    assert 'simservice_real_transitions_total{source="probe",world="toy"} 300.0' in page


@pytest.mark.parametrize(
    "failure", [ServerUnavailable("127.0.0.1:1", "refused"), ZeroDivisionError("in the env"), OSError("gone")]
)
def test_a_failure_is_outlived_and_leaves_the_old_timestamp(failure):
    def run(number, counter):
        if number in (1, 2):
            counter.spend(7)
            raise failure
        return Found(number, finished_at=1000.0 + number)

    state, page, done = watching(run, rounds=3)
    assert (state.succeeded, state.failed, done) == (1, 2, [0, 1, 2])
    assert type(failure).__name__ in state.last_error
    assert 'simservice_fidelity_last_success_timestamp_seconds{world="toy"} 1000.0' in page
    assert 'simservice_real_transitions_total{source="probe",world="toy"} 14.0' in page


def test_without_any_success_nothing_is_published_as_good():
    def run(number, counter):
        raise RuntimeError("the real environment is broken")

    _, page, _ = watching(run, rounds=2)
    assert "simservice_trust_horizon_steps{" not in page
    assert "last_success_timestamp_seconds{" not in page


def test_a_spent_budget_ends_the_watch():
    def run(number, counter):
        counter.spend(60)
        return Found(number)

    state, _, done = watching(run, rounds=100, budget=100)
    assert done == [0, 1]
    assert "budget of 100" in state.last_error


def test_stopping_does_not_wait_for_the_next_round():
    stop = threading.Event()
    metrics = FidelityMetrics()
    reported = threading.Event()
    thread = threading.Thread(
        target=watch,
        args=("toy", lambda number, counter: Found(number), metrics),
        kwargs={"every_s": 3600.0, "stop": stop, "on_report": lambda report: reported.set()},
    )
    thread.start()
    assert reported.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
