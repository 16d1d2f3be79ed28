"""What durability costs: a step with the journal beside the same step without, and round trips to the store a tick."""

from __future__ import annotations

import threading
import urllib.request

import numpy as np
import redis
import step_latency
from line import Line, Seen, at_most
from local_process import LocalProcess
from prometheus_client.parser import text_string_to_metric_families
from relay import Relay

from simservice.client.session import RemoteSession
from simservice.sessions.embedded import EmbeddedStore

SESSIONS, LANES = 16, 4


def overhead(stage, options, told):
    rounds = 6 if options.short else 20
    told("64 lanes, with and without a journal in turn", 0.1)
    modes = step_latency.measure(["local", "memory"], 64, rounds, 200)["modes"]
    on, off = modes["local"]["p50_us"], modes["memory"]["p50_us"]
    words = f"p50 of a 64-lane step, journal on ({on:.0f} us) over off ({off:.0f} us)"
    yield at_most(words, on / off, 1.15)
    for sessions in (1, SESSIONS):
        told(f"round trips of {sessions} sessions", 0.6)
        trips, scripts, ticks, steps = round_trips(stage.toy, sessions, 300 if options.short else 1_500)
        yield Seen(
            f"round trips to the store a tick, {sessions} sessions ({scripts / steps:.2f} commands a step)",
            "<= 1.05, the rest being snapshots and leases",
            f"{trips / ticks:.3f} ({trips:,} in {ticks:,} ticks)",
            trips / ticks <= 1.05,
            trips / ticks,
        )


def round_trips(folder, sessions, steps):
    """(round trips, script calls, ticks, steps) while so many sessions step at once."""
    with (
        EmbeddedStore() as store,
        Relay(f"unix:{store.url.removeprefix('unix://')}") as wire,
        LocalProcess(folder, store_url=f"redis://{wire.address}") as server,
        redis.Redis.from_url(store.url) as asked,
    ):
        players = [RemoteSession(server.address, "toy", num_envs=LANES) for _ in range(sessions)]
        for player in players:
            player.reset()
        before = (wire.turns, _scripts(asked), _ticks(server))
        threads = [threading.Thread(target=_step, args=(player, steps)) for player in players]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = (wire.turns, _scripts(asked), _ticks(server))
        for player in players:
            player.close()
    trips, scripts, ticks = (late - early for early, late in zip(before, after, strict=True))
    return trips, scripts, ticks, steps * sessions


def _step(player, steps):
    action = {"action": np.ones(LANES, np.int64)}
    for _ in range(steps):
        player.step(action)


def _scripts(asked):
    stats = asked.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval", "fcall"))


def _ticks(server):
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return int(sum(s.value for f in families for s in f.samples if s.name == "simservice_tick_duration_seconds_count"))


LINES = (Line("overhead", "the journal's cost, in time and in round trips", overhead),)
