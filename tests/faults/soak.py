"""Minutes of play with comings, goings and broken connections: nothing in the server may grow."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
from line import Line, Seen, at_least, at_most, exactly
from local_process import LocalProcess
from relay import Relay

from simservice.client.session import RemoteSession

SESSIONS, LANES = 6, 8
SAMPLE_S = 3.0
WARM = 0.25  # of the run: what is allocated once is allocated then


def soak(stage, options, told):
    seconds = 60.0 * options.soak_minutes
    with LocalProcess(stage.toy) as server, Relay(server.address) as wire:
        with _Play(server.address, wire) as play:
            samples = _sampled(server, play, seconds, told)
        failures, steps, visits, drops = play.failures, play.steps, play.visits, wire.drops
    times, memory, descriptors, threads, series = np.array(samples).T
    slope = 60.0 * float(np.polyfit(times, memory, 1)[0])
    yield exactly("exceptions in users' loops", len(failures), 0, *map(str, failures[:1]))
    yield at_least(f"steps, beside {visits:,} sessions that came and went and {drops:,} drops", steps, 100)
    yield at_most(f"slope of resident memory ({memory[0]:.1f} to {memory[-1]:.1f} MB), MB a minute", slope, 1.0)
    for what, values in (("open files and sockets", descriptors), ("threads", threads)):
        early, late = np.median(values[: len(values) // 3]), np.median(values[-(len(values) // 3) :])
        seen = f"{early:.0f} and {late:.0f} (between {values.min():.0f} and {values.max():.0f})"
        yield Seen(f"{what}, median of the first and the last third", "no more", seen, late <= early + 1, late - early)
    yield exactly("series on the metrics page, most over fewest", series.max() - series.min(), 0, f"{series[0]:.0f}")


class _Play:
    """Sessions that step without end, one that comes and goes, and a wire that breaks."""

    def __init__(self, address, wire):
        self._address, self._wire = address, wire
        self._ended, self.calm = threading.Event(), threading.Event()
        self.calm.set()
        self.steps = self.visits = 0
        self.failures = []
        work = [self._go_on] * SESSIONS + [self._come_and_go]
        self._threads = [threading.Thread(target=self._tried, args=(one,), daemon=True) for one in work]
        self.quiet = threading.Lock()  # held while nobody comes, goes or is cut off

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _tried(self, work):
        try:
            work()
        except Exception as error:  # whatever a user would have met is what is counted
            self.failures.append(error)

    def _go_on(self):
        action = {"action": np.ones(LANES, np.int64)}
        with contextlib.closing(RemoteSession(self._wire.address, "toy", num_envs=LANES, patience_s=120.0)) as session:
            session.reset()
            while not self._ended.is_set():
                session.step(action)
                self.steps += 1

    def _come_and_go(self):
        while not self._ended.wait(0.1):
            with self.quiet:
                with contextlib.closing(RemoteSession(self._address, "toy", num_envs=1 + self.visits % 64)) as visitor:
                    visitor.reset()
                self.visits += 1
                if self.visits % 20 == 0:
                    self._wire.cut(reset=self.visits % 40 == 0)


def _sampled(server, play, seconds, told):
    """Rows of (seconds, MB, descriptors, threads, series) once the server is warm."""
    rows, began = [], time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        told(f"{passed:.0f} of {seconds:.0f} s", passed / seconds)
        time.sleep(SAMPLE_S)
        with play.quiet:
            row = (passed, server.memory_mb(), server.descriptors(), server.threads(), server.series())
        if passed > WARM * seconds:
            rows.append(row)
    return rows


LINES = (Line("soak", "minutes of play, visitors and drops: nothing grows", soak),)
