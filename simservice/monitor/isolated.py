"""Measures a world's fidelity in a process of its own, with an end to its patience: the real environment may hang."""

from __future__ import annotations

import multiprocessing
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from simservice.client.policy import load_policy
from simservice.data.collect import RealStepCounter
from simservice.errors import RealEnvironmentFailed, SimserviceError
from simservice.monitor.probe import probe
from simservice.monitor.reality import ProbeConfig


@dataclass(frozen=True)
class Measured:
    """What a measurement gave."""

    reading: dict[str, Any]  # the fields of a FidelityReading
    report: dict[str, Any]  # all figures, as JSON values
    real_steps: int
    finished_at: float


def measure(
    address: str, world: str, config: ProbeConfig, policy: str | None, timeout_s: float, most_steps: int | None
) -> Measured:
    """Runs one probe; raises what it raised, or RealEnvironmentFailed when it did not end in time."""
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
        acting = load_policy(policy).greedy() if policy is not None else None
        report = probe(address, world, config, policy=acting, counter=counter)
        answer: Any = Measured(asdict(report.reading()), report.to_json(), counter.steps, report.finished_at)
    except SimserviceError as error:
        answer = error
    except Exception as error:  # whatever a foreign environment raises
        answer = RealEnvironmentFailed(config.env_id, f"{type(error).__name__}: {error}")
    connection.send(answer)
