"""Measures a world's fidelity in a process of its own, with an end to its patience: the real environment may hang."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from simservice.client.policy import load_policy
from simservice.data.collect import RealStepCounter
from simservice.errors import RealEnvironmentFailed, SimserviceError
from simservice.fidelity.metric import metrics
from simservice.fidelity.states import CONVENTION, HORIZONS, trust_horizon
from simservice.monitor.evaluation.evaluate import Evaluation, evaluate
from simservice.monitor.reality import ProbeConfig
from simservice.protocol.messages import plain_json
from simservice.telemetry import FidelityReading

SPLITS = 50
"""Of reality into halves, for noise floors: a monitor measures again soon."""


@dataclass(frozen=True)
class Measured:
    """What a measurement gave."""

    reading: dict[str, Any]  # the fields of a FidelityReading, without what is unknown
    report: dict[str, Any]  # every score with its interval and units, and the verdict
    real_steps: int
    finished_at: float


def measure(
    address: str, world: str, config: ProbeConfig, policy: str | None, timeout_s: float, most_steps: int | None
) -> Measured:
    """Runs one evaluation; raises what it raised, or RealEnvironmentFailed when it did not end in time."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_run, args=(theirs, address, world, config, policy, most_steps), name="fidelity", daemon=True
    )
    process.start()
    theirs.close()
    try:
        if not ours.poll(timeout_s):
            raise RealEnvironmentFailed(config.env_id, f"a measurement did not end within {timeout_s:g} s")
        answer = ours.recv()
    except EOFError as error:
        raise RealEnvironmentFailed(config.env_id, "the process that measured it has ended") from error
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(answer, Exception):
        raise answer
    found: Measured = answer
    return found


def _run(
    connection: Connection, address: str, world: str, config: ProbeConfig, policy: str | None, most_steps: int | None
) -> None:
    counter = RealStepCounter(most_steps)
    try:
        given = {"policy": load_policy(policy).greedy()} if policy is not None else {}
        found = evaluate(address, world, config, policies=given, splits=SPLITS, counter=counter)
        answer: Any = Measured(asdict(reading_of(found)), report_of(found), counter.steps, found.finished_at)
    except SimserviceError as error:
        answer = error
    except Exception as error:  # whatever a foreign environment raises
        answer = RealEnvironmentFailed(config.env_id, f"{type(error).__name__}: {error}")
    connection.send(answer)


def reading_of(found: Evaluation) -> FidelityReading:
    """What is published of an evaluation. What is unknown is left out."""
    world, _, version = found.world.partition("@")
    leads = [lead for lead in HORIZONS if lead <= len(found.curve.error)]
    scores = {name: score.value for name, score in found.scores.items()}
    ratios = {name: found.floors[name].ratio(metric, scores[name]) for name, metric in metrics().items()}
    return FidelityReading(
        world=world,
        model_version=version,
        error_ratio=_known({lead: found.curve.at(lead) for lead in leads}),
        alive_ratio=_known({lead: float(found.curve.alive[lead - 1]) for lead in leads}),
        trust_horizon_steps=trust_horizon(found.curve),
        served_horizon_steps=found.served_horizon_steps,
        scores=_known(scores),
        noise_ratio=_known({name: ratio for name, ratio in ratios.items() if metrics()[name].floor == "halves"}),
        return_gap_floor=_known({0: found.returns.floor}).get(0),
        rank_units=found.ranking.units,
        reference_probes=found.real_episodes,
        data_hash=found.data_hash[:12],
        convention="climatology",
    )


def report_of(found: Evaluation) -> dict[str, Any]:
    """As JSON values; what is unknown is null."""
    told = {
        "world": found.world,
        "env_id": found.env_id,
        "verdict": asdict(found.page.verdict),
        "scores": {name: asdict(score) for name, score in found.scores.items()},
        "missing": dict(found.missing),
        "real_steps": found.real_steps,
        "convention": CONVENTION,
        "finished_at": found.finished_at,
        "seconds": round(found.seconds, 1),
    }
    report: dict[str, Any] = plain_json(told)
    return report


def _known(values: Mapping[Any, float]) -> dict[Any, float]:
    return {key: value for key, value in values.items() if math.isfinite(value)}
