"""Forks of many lanes: how many ticks they take, and whether the copies go the parent's way, also over a bad wire."""

from __future__ import annotations

import time

import numpy as np
from drops import Dropper
from ledger import ACTIONS
from line import Line, Seen, at_most, exactly
from relay import Relay

from simservice.client.session import RemoteSession
from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.wiring import ReplicaConfig
from simservice.sessions.settings import SessionConfig

LANES, STEPS = 256, 120  # an episode has 100 steps
TTL_S = 2.0


def forks(stage, options, told):
    sessions = SessionConfig(detached_ttl_s=TTL_S)  # a close may meet a drop, too
    config = LocalConfig(grace_s=0.1, replica=ReplicaConfig(sessions=sessions))
    with LocalServer([stage.ledger], config=config) as server, Relay(server.address) as wire:
        engine = server.service.replicas[0].engine
        parent = RemoteSession(server.address, "ledger", num_envs=LANES)
        luck = np.random.default_rng(options.seed)
        steps_s = [_played(parent, luck)[1] for _ in range(20)]
        told("a fork of 256 lanes", 0.1)
        before, began = engine.stats().ticks, time.perf_counter()
        child = parent.fork()
        took_s, ticks = time.perf_counter() - began, engine.stats().ticks - before
        yield at_most(f"ticks of a fork of {LANES} lanes", ticks, 3)
        others = _differences(parent, child, luck)
        yield exactly("steps in which a copy with the same luck and actions gave other bits", others, 0, f"of {STEPS}")
        child.close()
        step_s = float(np.median(steps_s))
        yield Seen(
            "its time as a user sees it, over that of a step", "told", f"{took_s / step_s:.1f}", True, took_s / step_s
        )
        count = 5 if options.short else 40
        shaky = RemoteSession(wire.address, "ledger", num_envs=LANES, patience_s=60.0)
        _played(shaky, luck)
        yield from _over_a_bad_wire(shaky, wire, luck, count, options.seed, told)
        parent.close()
        shaky.close()
        deadline = time.monotonic() + TTL_S + 10.0
        while engine.stats().lanes_in_use and time.monotonic() < deadline:
            time.sleep(0.1)
        yield exactly("lanes still held 10 s later", engine.stats().lanes_in_use, 0)


def _over_a_bad_wire(parent, wire, luck, count, seed, told):
    """Forks, saves and restores while the connection drops."""
    dropper, others = Dropper(wire, seed), 0
    for number in range(count):
        told(f"fork {number} of {count} over a wire that drops", number / count)
        for _ in range(3):
            dropper(number)
            _played(parent, luck)
        point = parent.save()
        dropper(number)
        child = parent.fork(np.arange(0, LANES, 8), copies=2)
        dropper(number)
        action = luck.integers(0, ACTIONS, LANES)
        mine, yours = parent.step({"action": action}), child.step({"action": np.repeat(action[::8], 2)})
        others += not _same(np.repeat(mine.observation["observation"][::8], 2, axis=0), yours)
        dropper(number)
        parent.restore(point)
        again = parent.step({"action": action})
        others += not _same(mine.observation["observation"], again)
        parent.forget(point)
        child.close()
    yield exactly(f"other bits in {count} forks and restores, {wire.drops} drops between and in them", others, 0)


def _played(session, luck):
    """One step, with a reset before the first; its seconds."""
    if session.sequence == 0:
        session.reset(seeds=luck.integers(0, 2**40, LANES))
    began = time.perf_counter()
    result = session.step({"action": luck.integers(0, ACTIONS, LANES)})
    return result, time.perf_counter() - began


def _differences(parent, child, luck):
    found = 0
    for _ in range(STEPS):
        action = {"action": luck.integers(0, ACTIONS, LANES)}
        found += not _same(parent.step(action).observation["observation"], child.step(action))
    return found


def _same(wanted, result):
    return wanted.tobytes() == result.observation["observation"].tobytes()


LINES = (Line("forks", "forks of 256 lanes, and forks and restores over a wire that drops", forks),)
