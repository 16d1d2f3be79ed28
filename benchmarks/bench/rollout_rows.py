"""The row about rollouts that the server plays: beside world and policy in one process, and beside RLlib's runner."""

from __future__ import annotations

from typing import Any

from bench.lines import Found, Pace, at_least, table, untested
from bench.player import players
from bench.stage import Stage
from bench.timing import compete

HERE, SERVER = "world + policy, in process", "rollout on the server, as arrays"
OURS, THEIRS = "RolloutEnvRunner, as episodes", "RLlib's own EnvRunner, as episodes"
KIND = "episodic"


def rollouts(stage: Stage, pace: Pace) -> Found:
    """256 lanes for 64 steps, acted for by an MLP."""
    row = "rollouts"
    with stage.serving(KIND) as (address, name):
        places: dict[str, tuple[Any, ...]] = {
            HERE: ("bench.peers.rollout_ways:here", KIND),
            SERVER: ("bench.peers.rollout_ways:server", KIND, address, name),
            OURS: ("bench.peers.rollout_ways:runner", address, name, True),
            THEIRS: ("bench.peers.rollout_ways:runner", address, name, False),
        }
        with players(places) as (there, missing):
            series = compete(there, pace.rounds, 2 * pace.seconds)
    words = "rollouts on the server, MLP, 256 lanes × 64 steps, over"
    lines = [at_least(row, f"{words} {HERE}", series.ratio(SERVER, HERE, "rate"), 0.6, None, pace)]
    over = f"{OURS}, over {THEIRS}"
    if missing:
        lines.append(untested(row, over, "≥ 5 ×", "; ".join(missing.values())))
    else:
        lines.append(at_least(row, over, series.ratio(OURS, THEIRS, "rate"), 5.0, 10.0, pace))
    return Found(
        lines, [table(row, "256 lanes × 64 steps by a policy; p50 and p99 are of whole rollouts", series, missing)]
    )
