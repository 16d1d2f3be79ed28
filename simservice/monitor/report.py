"""What a probe found: all figures with what is needed to read them, as numbers, as JSON, as a reading to publish."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from simservice.fidelity.metric import Score
from simservice.fidelity.outcomes import ReturnGap
from simservice.fidelity.states import CONVENTION, HORIZONS, TAU, HorizonCurve
from simservice.fidelity.traces import Traces
from simservice.telemetry import FidelityReading


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """One measurement of one world."""

    world: str  # its name
    model_version: str
    env_id: str
    attributes: Mapping[str, Any]  # changed physics of the real environment
    curve: HorizonCurve
    trust_horizon_steps: Mapping[float, int]  # by tolerance
    returns: ReturnGap
    scores: Mapping[str, Score]  # every registered metric, by name
    served_horizon_steps: int | None
    real_episodes: int
    real_steps: int
    imagined_steps: int
    data_hash: str  # of the real episodes
    finished_at: float  # Unix seconds
    seconds: float
    real: Traces  # the windows themselves, for pictures
    imagined: Traces

    @property
    def trust_horizon(self) -> int:
        """At the default tolerance."""
        return self.trust_horizon_steps[TAU]

    def reading(self) -> FidelityReading:
        """What is published of it."""
        leads = [lead for lead in HORIZONS if lead <= len(self.curve.error)]
        return FidelityReading(
            world=self.world,
            model_version=self.model_version,
            error_ratio={lead: self.curve.at(lead) for lead in leads},
            alive_ratio={lead: float(self.curve.alive[lead - 1]) for lead in leads},
            trust_horizon_steps=self.trust_horizon,
            served_horizon_steps=self.served_horizon_steps,
            scores={
                **{name: score.value for name, score in self.scores.items()},
                "return_gap_max_abs": self.returns.max_abs.value,
                "return_gap_mean": self.returns.mean.value,
            },
            return_gap_floor=self.returns.floor,
            rank_units=len(self.returns.policies),
            reference_probes=self.real_episodes,
            data_hash=self.data_hash[:12],
            convention="climatology",
        )

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values; unknown ones are null."""
        return {
            "world": f"{self.world}@{self.model_version}",
            "env_id": self.env_id,
            "attributes": dict(self.attributes),
            "trust_horizon_steps": {str(tau): steps for tau, steps in self.trust_horizon_steps.items()},
            "error": _plain(self.curve.error.tolist()),
            "error_upper": _plain(self.curve.upper.tolist()),
            "alive": self.curve.alive.tolist(),
            "windows": self.curve.windows,
            "return_gap": _plain(asdict(self.returns)),
            "scores": {name: _plain(asdict(score)) for name, score in self.scores.items()},
            "served_horizon_steps": self.served_horizon_steps,
            "real_episodes": self.real_episodes,
            "real_steps": self.real_steps,
            "imagined_steps": self.imagined_steps,
            "data_hash": self.data_hash,
            "convention": CONVENTION,
            "finished_at": self.finished_at,
            "seconds": round(self.seconds, 3),
        }


def _plain(value: Any) -> Any:
    """The same with null for what is not a finite number: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
