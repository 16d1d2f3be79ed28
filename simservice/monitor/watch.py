"""Probes again and again and publishes what is found. Outlives a dead service, a broken environment and a slow probe.

A probe that fails publishes nothing: the timestamp of the last success stays where it was, and its age is the alarm.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from simservice.data.collect import RealStepCounter
from simservice.errors import RealStepBudgetExceeded
from simservice.monitor.report import ProbeReport
from simservice.telemetry import FidelityMetrics

LOG = logging.getLogger(__name__)

ProbeOnce = Callable[[int, RealStepCounter], ProbeReport]
"""Runs the probe of this number (0, 1, ...), counting its real steps."""


@dataclass
class WatchState:
    """How the watch went so far."""

    succeeded: int = 0
    failed: int = 0
    last_error: str = ""


def watch(
    world: str,
    run: ProbeOnce,
    metrics: FidelityMetrics,
    *,
    every_s: float,
    stop: threading.Event,
    counter: RealStepCounter | None = None,
    on_report: Callable[[ProbeReport], None] | None = None,
) -> WatchState:
    """Probes every `every_s` seconds (start to start; a slow probe delays the next, and none overlap) until `stop`.

    Nothing that a probe raises comes out, but a spent budget of real steps ends the watch: it is what was asked for.
    """
    state = WatchState()
    counter = counter if counter is not None else RealStepCounter()
    number = 0
    while not stop.is_set():
        began, spent = time.monotonic(), counter.steps
        try:
            report = run(number, counter)
        except RealStepBudgetExceeded as error:
            LOG.warning("the watch of %s ends: %s", world, error)
            state.last_error = str(error)
            return state
        except Exception as error:  # whatever a foreign environment raises must not end the watch
            state.failed += 1
            state.last_error = f"{type(error).__name__}: {error}"
            LOG.warning("probe %d of %s failed: %s", number, world, state.last_error)
        else:
            state.succeeded += 1
            metrics.publish(report.reading(), at=report.finished_at)
            if on_report is not None:
                on_report(report)
        finally:
            if counter.steps > spent:
                metrics.add_real_transitions(world, "probe", counter.steps - spent)
        number += 1
        stop.wait(max(0.0, every_s - (time.monotonic() - began)))
    return state
