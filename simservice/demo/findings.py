"""Everything the demo found, as the JSON values of summary.json and details.json. Measures and draws nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from simservice import __version__
from simservice.data.episodes import Dataset
from simservice.demo.baseline import Baseline
from simservice.demo.dyna import Plan, Round
from simservice.demo.scoring import Score
from simservice.demo.traces import Trace, plain_numbers
from simservice.fidelity.states import TAU
from simservice.monitor.report import ProbeReport

COUNTED = (
    "recording, held-out episodes, and every episode that checked a policy or stopped the rounds; the final score and "
    "the probes come after all of that and change nothing"
)
PACKAGES = ("torch", "ray", "gymnasium", "grpcio", "numpy")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a run measured."""

    plan: Plan
    changed: Mapping[str, float]
    rounds: Sequence[Round]
    kept: Round
    scores: Sequence[Score]  # of each round's policy
    baseline: Baseline
    small_batches: Baseline
    before: ProbeReport
    after: ProbeReport
    traces: Sequence[Trace]
    real_steps: int
    dataset: Dataset
    seconds: Mapping[str, float]
    elapsed_s: float


def summary_of(found: Findings) -> dict[str, Any]:
    """The figures, one name each; JSON values."""
    final = found.scores[found.kept.number - 1]
    steps = sum(played.last["steps"] for played in found.rounds)
    learning = sum(played.last["elapsed_s"] for played in found.rounds)
    sampling = sum(played.last["sampling_s"] for played in found.rounds)
    return {
        "real_return_mean": final.mean,
        "real_return_interval": list(final.interval),
        "real_return_min": min(final.returns),
        "real_episodes": len(final.returns),
        "solved": final.mean >= found.plan.rules.solved_at,
        "solved_at": found.plan.rules.solved_at,
        "real_steps": found.real_steps,
        "real_steps_budget": found.plan.rules.budget,
        "measurement_steps": {
            "scores": sum(one.steps for one in (*found.scores, found.baseline.score, found.small_batches.score)),
            "probes": found.before.real_steps + found.after.real_steps,
        },
        "counted": COUNTED,
        "baseline_return_mean": found.baseline.score.mean,
        "baseline_return_interval": list(found.baseline.score.interval),
        "baseline_real_steps": found.baseline.real_steps,
        "baseline_small_batches_return_mean": found.small_batches.score.mean,
        "baseline_small_batches_return_interval": list(found.small_batches.score.interval),
        "baseline_small_batches_real_steps": found.small_batches.real_steps,
        "trust_horizon_steps": found.before.trust_horizon,
        "trust_horizon_steps_changed": found.after.trust_horizon,
        "return_gap": found.before.returns.max_abs.value,
        "return_gap_changed": found.after.returns.max_abs.value,
        "changed": dict(found.changed),
        "imagined_steps": steps,
        "imagined_steps_per_s": steps / learning,
        "imagined_steps_per_sampling_s": steps / max(sampling, 1e-9),
        "rounds": [_round(played, score, found.kept) for played, score in zip(found.rounds, found.scores, strict=True)],
        "kept_round": found.kept.number,
        "world": found.kept.world,
        "family": found.plan.family,
        "env_id": found.plan.env_id,
        "seed": found.plan.seed,
        "dataset_id": found.dataset.dataset_id,
        "dataset_hash": found.dataset.hash,
        "stages": [[name, round(seconds, 2)] for name, seconds in found.seconds.items()],
        "elapsed_s": round(found.elapsed_s, 1),
        "ended": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "versions": {"simservice": __version__, **{name: importlib.metadata.version(name) for name in PACKAGES}},
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}",
    }


def details_of(found: Findings) -> dict[str, Any]:
    """Curves and traces behind the pictures; JSON values, unknown numbers are null."""
    changed = ", ".join(f"{name} {value:g}" for name, value in found.changed.items())
    return {
        "tau": TAU,
        "curves": [_curve("reality as it was", found.before), _curve(f"reality with {changed}", found.after)],
        "traces": [asdict(trace) for trace in found.traces],
        "learning": [
            {
                "steps": [step for step, _ in played.learning],
                "return": plain_numbers([value for _, value in played.learning]),
            }
            for played in found.rounds
        ],
        "baseline": _learning(found.baseline),
        "baseline_small_batches": _learning(found.small_batches),
        "return_limit": float(max(max(score.returns) for score in found.scores)),
        "lanes": found.plan.lanes,
        "probes": {"before": found.before.to_json(), "after": found.after.to_json()},
    }


def _learning(baseline: Baseline) -> dict[str, Any]:
    return {
        "real_steps": [step for step, _ in baseline.learning],
        "return": plain_numbers([value for _, value in baseline.learning]),
    }


def _round(played: Round, score: Score, kept: Round) -> dict[str, Any]:
    return {
        "round": played.number,
        "kept": played.number == kept.number,
        "world": played.world,
        "real_steps_trained": played.real_steps_trained,
        "dream_return_mean": played.last["return_mean"],
        "check_returns": list(played.check.finished),
        "check_steps": played.check.steps,
        "real_return_mean": score.mean,
        "real_return_interval": list(score.interval),
        "imagined_steps": played.last["steps"],
        "imagined_steps_per_s": played.last["steps"] / played.last["elapsed_s"],
        "seconds": round(played.seconds, 1),
    }


def _curve(name: str, report: ProbeReport) -> dict[str, Any]:
    curve = report.curve
    return {
        "name": name,
        "lead": list(range(1, len(curve.error) + 1)),
        "error": plain_numbers(curve.error),
        "lower": plain_numbers(curve.lower),
        "upper": plain_numbers(curve.upper),
        "alive": plain_numbers(curve.alive),
    }
