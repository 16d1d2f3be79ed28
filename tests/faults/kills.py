"""What dies while 32 sessions play: replicas, the store, HAProxy. What their clients saw is held against a calm run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import numpy as np
from crowd import Crowd, difference
from history import violations
from line import Line, Seen, at_least, at_most, exactly
from replicas import busiest, process_of, wait_until_up

WORLD, REPLICAS = "ledger", 2
SESSIONS, LANES, STEPS = 32, 8, 300
TOLERANCE = 1e-5


def a_replica(service):
    """The process that holds most lanes, so that every kill is felt."""
    return busiest(service, WORLD)


def the_store(service):
    """The embedded server; its launcher starts it again."""
    return process_of(service, "valkey-server").pid


def haproxy(service):
    """The proxy in front; Ray Serve starts it again."""
    return process_of(service, "haproxy -").pid


def calm(stage, options):
    """The run that nothing disturbs, made once for all lines of this file."""
    if stage.calm_run is None:
        steps = 60 if options.short else STEPS
        stage.calm_run = _crowd(stage, steps, options.seed)
        with stage.calm_run:
            pass
        assert not stage.calm_run.failures, stage.calm_run.failures[0]
    return stage.calm_run


def disturbed(stage, options, told, kills, choose, number=signal.SIGKILL):
    """The same seeds while a process dies so many times, each time in the middle of everybody's steps.

    Returns the calm run, the disturbed one and the moments of the kills.
    """
    told("the undisturbed run", 0.0)
    expected = calm(stage, options)
    killed, moments = [], []
    with _crowd(stage, expected.steps, options.seed) as crowd:
        for done in range(kills):
            told(f"{done} of {kills} killed", (done + 0.5) / (kills + 1))
            wait_until_up(stage.ray, WORLD, REPLICAS, killed=killed)
            killed.append(choose(stage.ray))
            middle = expected.steps * (done + 1) // (kills + 1)
            crowd.allow(middle + expected.steps // (2 * (kills + 1)))
            crowd.wait(SESSIONS * middle)
            moments.append(time.monotonic())
            os.kill(killed[-1], number)
            crowd.wait(SESSIONS * middle + SESSIONS)
    return expected, crowd, moments


def rows(expected, crowd, moments, *, p50_s=None, p99_s=None):
    """What every line of this file is held to."""
    caught = sum(entry.began_s < moment < entry.ended_s for moment in moments for entry in crowd.entries)
    yield at_least(f"steps under way at one of {len(moments)} kills", caught, len(moments))
    broken = violations(crowd.entries)
    gap = difference(crowd.played, expected.played)
    stalls = np.array([stall for played in crowd.played for stall in played.stalls_s])
    yield exactly(
        "exceptions in users' loops", len(crowd.failures), 0, str(crowd.failures[0]) if crowd.failures else ""
    )
    yield exactly("acknowledged steps", sum(len(played.steps_s) + len(played.stalls_s) for played in crowd.played),
                  SESSIONS * expected.steps)  # fmt: skip
    yield exactly("lost, repeated or reordered steps", len(broken), 0, "; ".join(broken[:2]))
    yield same(gap, TOLERANCE)
    if p50_s is not None:
        yield at_most(f"stall, p50 of {len(stalls)}", float(np.median(stalls)) if len(stalls) else np.inf, p50_s, " s")
    if p99_s is not None:
        stall = float(np.percentile(stalls, 99)) if len(stalls) else np.inf
        yield at_most("stall, p99", stall, p99_s, " s")


def replicas_killed(stage, options, told):
    kills = 4 if options.short else 20
    found = disturbed(stage, options, told, kills, a_replica)
    yield from rows(*found, p50_s=0.5, p99_s=12.0)


@contextlib.contextmanager
def busy_disk(folder):
    """Writes and flushes without end: a store that answers before its write is in the file loses it now."""
    ended, block = threading.Event(), bytes(8 * 2**20)

    def write():
        with open(folder / "busy", "wb", buffering=0) as file:
            while not ended.is_set():
                file.seek(0)
                for _ in range(16):
                    file.write(block)
                os.fsync(file.fileno())

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def store_killed(stage, options, told):
    calm(stage, options)
    with busy_disk(stage.folder):
        expected, crowd, moments = disturbed(stage, options, told, 5, the_store)
    yield from rows(expected, crowd, moments)
    slowest = max(step for played in crowd.played for step in played.steps_s + played.stalls_s)
    yield at_most("slowest step", slowest, 12.0, " s")


def haproxy_killed(stage, options, told):
    yield from rows(*disturbed(stage, options, told, 1, haproxy), p99_s=12.0)


LINES = (
    Line("kills", "20 SIGKILLs of replicas while 32 sessions step 8 lanes 300 times", replicas_killed),
    Line("store", "the same, the store killed 5 times on a busy disk", store_killed),
    Line("haproxy", "the same, HAProxy killed once", haproxy_killed),
)


def _crowd(stage, steps, seed):
    wait_until_up(stage.ray, WORLD, REPLICAS)
    return Crowd(
        stage.ray.address,
        sessions=SESSIONS,
        lanes=LANES,
        steps=steps,
        seed=seed,
        patience_s=120.0,
        tokens=stage.tokens,
    )


def same(gap, tolerance):
    """How far two runs of the same seeds are apart."""
    seen = "bit for bit the same" if gap == 0 else f"{gap:.2g}"
    return Seen("largest difference from the undisturbed run", f"<= {tolerance:g}", seen, gap <= tolerance, gap)
