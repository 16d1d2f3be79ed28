"""SIGTERM while sessions play: a server that ends in order fails nobody's step, whoever comes after it."""

from __future__ import annotations

import signal

import kills
from crowd import Crowd, difference
from history import violations
from line import Line, at_most, exactly
from local_process import LocalProcess

from simservice.serving.address import free_port
from simservice.sessions.embedded import EmbeddedStore

SESSIONS, LANES, STEPS, TIMES = 8, 8, 1_500, 4
PART = STEPS // (TIMES + 1)  # of the steps, between two ends


def one_process(stage, options, told):
    """A server that is ended and started again at its address, as an upgrade does it."""
    with EmbeddedStore() as store:
        words = {"port": free_port(), "store_url": store.url}
        with LocalProcess(stage.ledger, **words) as server:
            with _crowd(server.address, options) as calm:
                calm.allow(STEPS)
            statuses = []
            with _crowd(server.address, options) as crowd:
                for number in range(TIMES):
                    told(f"{number} of {TIMES} ended", number / TIMES)
                    crowd.allow(PART * (number + 1) + PART // 2)
                    crowd.wait_for_each(PART * (number + 1))
                    statuses.append(server.end())
                    server.start()
    broken = violations(crowd.entries)
    stalls = [stall for played in crowd.played for stall in played.stalls_s]
    yield exactly("failed steps", len(crowd.failures), 0, *map(str, crowd.failures[:1]))
    yield exactly("ends with status 0", statuses.count(0), TIMES)
    yield exactly("lost, repeated or reordered steps", len(broken), 0, "; ".join(broken[:2]))
    yield kills.same(difference(crowd.played, calm.played), kills.TOLERANCE)
    yield at_most(f"slowest of {len(stalls)} steps that met the end", max(stalls), 12.0, " s")


def replicas_of_ray(stage, options, told):
    """Replicas of Ray Serve that get a SIGTERM under load."""
    found = kills.disturbed(stage, options, told, 3, kills.a_replica, signal.SIGTERM)
    yield from kills.rows(*found, p99_s=12.0)


def _crowd(address, options):
    return Crowd(address, sessions=SESSIONS, lanes=LANES, steps=STEPS, seed=options.seed, patience_s=120.0)


LINES = (
    Line("sigterm", "a server ended by SIGTERM under load, 4 times", one_process),
    Line("sigterm-ray", "replicas of Ray Serve ended by SIGTERM under load, 3 times", replicas_of_ray),
)
