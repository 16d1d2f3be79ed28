"""Rows about the wire: a free world behind it, beside echoes of the same bytes and everybody who steps remotely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.lines import Found, Line, Pace, at_least, at_most, table, untested
from bench.player import players
from bench.raw_session import sizes_of_a_step
from bench.stage import Stage
from bench.timing import Series, compete

OURS = "simservice"
ECHO = "raw grpc.aio echo"
PROXIED = "the echo behind HAProxy"
NUMPY = "raw echo + numpy env"
HERE = "engine, in process"
DM_ENV_RPC = "dm_env_rpc, batched tensors"
OPENENV = "OpenEnv, a socket an env"
RLMESH = "RLMesh"
ASYNC = "Gymnasium AsyncVectorEnv, in process"

NETWORKED = {
    DM_ENV_RPC: "bench.peers.dm_env_rpc_tensors:peer",
    OPENENV: "bench.peers.openenv_sockets:peer",
    RLMESH: "bench.peers.rlmesh_vector:peer",
}
IN_PROCESS = {
    "Gymnasium SyncVectorEnv, in process": "bench.peers.gymnasium_vector:synchronous",
    ASYNC: "bench.peers.gymnasium_vector:asynchronous",
    "EnvPool's CartPole, in process": "bench.peers.envpool_classic:peer",
}


def one_lane(stage: Stage, pace: Pace) -> Found:
    """A single environment's step, its median and its tail."""
    series, missing = _race(stage, pace, "toy", 1, {**NETWORKED, **IN_PROCESS})
    row = "one-lane"
    lines = [
        at_most(row, "1 lane, p50 of a step over a raw echo's", series.ratio(OURS, ECHO, "p50"), 1.6, 1.3, pace),
        at_most(row, "1 lane, p99 of a step over a raw echo's", series.ratio(OURS, ECHO, "p99"), 2.0, None, pace),
    ]
    return Found(lines, [table(row, "1 lane of the toy world", series, missing)])


def lanes_64(stage: Stage, pace: Pace) -> Found:
    """64 lanes in one message."""
    series, missing = _race(stage, pace, "toy", 64, {**NETWORKED, **IN_PROCESS})
    row, words = "64-lanes", "64 lanes, steps/s over"
    lines = [at_least(row, f"{words} {NUMPY}", series.ratio(OURS, NUMPY, "rate"), 0.6, 0.8, pace)]
    lines += [_beside(row, f"{words} {name}", name, series, missing, 1.0, pace) for name in NETWORKED]
    return Found(lines, [table(row, "64 lanes of the toy world", series, missing)])


def lanes_256(stage: Stage, pace: Pace) -> Found:
    """256 lanes in one message."""
    peers = {name: place for name, place in {**NETWORKED, **IN_PROCESS}.items() if name not in (OPENENV, ASYNC)}
    series, missing = _race(stage, pace, "toy", 256, peers)  # those left out have a process or a socket an environment
    row, words = "256-lanes", "256 lanes, steps/s over"
    lines = [
        at_least(row, f"{words} a {ECHO}", series.ratio(OURS, ECHO, "rate"), 0.6, 0.8, pace),
        _beside(row, f"{words} {DM_ENV_RPC}", DM_ENV_RPC, series, missing, 1.2, pace),
    ]
    return Found(lines, [table(row, "256 lanes of the toy world", series, missing)])


def frames(stage: Stage, pace: Pace) -> Found:
    """Pictures of noise, which travel as they are, and pictures such as are drawn, which travel packed."""
    peers = {DM_ENV_RPC: NETWORKED[DM_ENV_RPC], RLMESH: NETWORKED[RLMESH]}
    series, missing = _race(stage, pace, "frames", 64, peers)
    drawn, _ = _race(stage, pace, "rendered", 64, {})
    row, words = "frames", "64×64×3 frames, 64 lanes, steps/s over"
    lines = [
        at_least(row, f"{words} a {ECHO}", series.ratio(OURS, ECHO, "rate"), 0.4, 0.7, pace),
        at_least(row, f"the same, frames as drawn, over a {ECHO}", drawn.ratio(OURS, ECHO, "rate"), 0.4, 0.7, pace),
        _beside(row, f"{words} {RLMESH}", RLMESH, series, missing, 50.0, pace),
    ]
    tables = [
        table(row, "64 lanes of 64×64×3 frames of noise", series, missing),
        table(row, "64 lanes of 64×64×3 frames as drawn", drawn),
    ]
    return Found(lines, tables)


def _beside(
    row: str, words: str, peer: str, series: Series, missing: Mapping[str, str], bar: float, pace: Pace
) -> Line:
    if peer in missing:
        return untested(row, words, f"≥ {bar:g} ×", missing[peer])
    return at_least(row, words, series.ratio(OURS, peer, "rate"), bar, None, pace)


def _race(stage: Stage, pace: Pace, kind: str, lanes: int, peers: Mapping[str, str]) -> tuple[Series, dict[str, str]]:
    """The service beside echoes as long as its own messages, its engine without a wire, and the peers there are."""
    shows = kind in ("frames", "rendered")
    with stage.serving(kind) as (address, name):
        sizes = sizes_of_a_step(address, name, lanes)
        places: dict[str, tuple[Any, ...]] = {
            OURS: ("bench.served:served", address, name, lanes),
            ECHO: ("bench.peers.raw_echo:peer", lanes, *sizes),
            PROXIED: ("bench.peers.proxied_echo:peer", lanes, *sizes),
            NUMPY: ("bench.peers.raw_numpy:peer", lanes, shows),
            HERE: ("bench.peers.engine_here:peer", kind, lanes),
            **{peer: (place, lanes, shows) for peer, place in peers.items()},
        }
        with players(places) as (there, missing):
            return compete(there, pace.rounds, pace.seconds), missing
