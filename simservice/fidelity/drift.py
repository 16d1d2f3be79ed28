"""Says when reality has changed, with a stated rate of false alarms: evidence, states, and what a restart needs.

Knows neither schedules nor exporters nor where probes come from; it is handed each probe's statistics under a number.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from simservice.errors import InvalidInput
from simservice.fidelity.banks import Banks, Calibration, probe_luck
from simservice.fidelity.probe_numbers import ProbeNumbers
from simservice.fidelity.probe_scores import ProbeStatistics
from simservice.fidelity.sequential import detectable_shift
from simservice.types import SEED_LIMIT

FORMAT = 1
SUSPECT_SHARE = 0.01
"""Of the threshold: from here on it is worth probing more often."""


class DriftState(StrEnum):
    """ok → suspect → drift → acknowledged → ok. Only drift stays until somebody acknowledges it."""

    OK = "ok"
    SUSPECT = "suspect"
    DRIFT = "drift"
    ACKNOWLEDGED = "acknowledged"  # the change is known; probes count for nothing until a new calibration is there


@dataclass(frozen=True, kw_only=True)
class DriftConfig:
    """What an alarm is worth."""

    mean_probes_to_false_alarm: float = (
        1e6  # c: at most T / c of unchanged worlds alarm within T probes, all kinds taken
    )


@dataclass(frozen=True, kw_only=True)
class DriftReading:
    """What is known after a probe; ready to be published."""

    state: DriftState
    log10_evidence: dict[str, float]  # by kind; 0 before the first probe
    log10_threshold: float  # of each kind: c times the number of kinds
    alarmed: tuple[str, ...]  # kinds that crossed the threshold in this epoch
    alarm_probe: int | None  # the number of the probe that raised the alarm
    probes: int  # that counted in this epoch
    epoch: int
    counted: bool  # whether the probe was new


class Detector:
    """Watches the kinds of its calibration. A repeated, late or reordered probe does no harm.

    Probes have numbers, given once by whoever plays them. The guarantee is over what the calibration's policies do:
    feed it probes of fixed policies of our own, not what users report.
    """

    def __init__(self, calibration: Calibration, config: DriftConfig | None = None) -> None:
        self.config = config if config is not None else DriftConfig()
        if not self.config.mean_probes_to_false_alarm > 1:
            raise InvalidInput("mean_probes_to_false_alarm", "must be greater than 1")
        self._calibration = calibration
        self._banks = Banks(calibration)
        self._state = DriftState.OK
        self._epoch = 0
        self._first = 0  # probes with lower numbers belong to an earlier epoch
        self._seen = ProbeNumbers()
        self._alarmed: list[str] = []
        self._alarm_probe: int | None = None

    @property
    def threshold(self) -> float:
        """The evidence of one kind at which it alarms."""
        return self.config.mean_probes_to_false_alarm * len(self._calibration.kinds)

    def update(self, probe: int, statistics: ProbeStatistics, policy: str | None = None) -> DriftReading:
        """Counts the probe of this number, unless it did before. `policy` names one of the calibration, or None.

        Raises InvalidInput for a number out of range or for not exactly one probe.
        """
        if not 0 <= probe < SEED_LIMIT or len(statistics) != 1:
            raise InvalidInput("probe", f"must be one probe with a number in [0, 2^63), found {len(statistics)}")
        if self._state is DriftState.ACKNOWLEDGED or probe < self._first or not self._seen.add(probe):
            return self.reading(counted=False)
        code = np.array([self._calibration.code(policy)])
        luck = probe_luck(np.array([probe]), self._calibration.luck_shape, salt=self._epoch)
        self._banks.update(statistics, code, luck)
        self._look(probe)
        return self.reading(counted=True)

    def _look(self, probe: int) -> None:
        evidence = {kind: float(found[0]) for kind, found in self._banks.evidence().items()}
        crossed = [kind for kind, found in evidence.items() if found >= self.threshold and kind not in self._alarmed]
        self._alarmed += crossed
        if crossed and self._alarm_probe is None:
            self._alarm_probe = probe
        if self._alarmed:
            self._state = DriftState.DRIFT
        elif max(evidence.values()) >= SUSPECT_SHARE * self.threshold:
            self._state = DriftState.SUSPECT
        else:
            self._state = DriftState.OK

    def reading(self, counted: bool = False) -> DriftReading:
        """What is known now."""
        evidence = {kind: float(found[0]) for kind, found in self._banks.evidence().items()}
        return DriftReading(
            state=self._state,
            log10_evidence={kind: math.log10(max(found, 1.0)) for kind, found in evidence.items()},
            log10_threshold=math.log10(self.threshold),
            alarmed=tuple(self._alarmed),
            alarm_probe=self._alarm_probe,
            probes=self._banks.count,
            epoch=self._epoch,
            counted=counted,
        )

    def acknowledge(self) -> DriftReading:
        """Somebody knows of the change: the evidence is spent, a new epoch begins, and waits for a calibration."""
        self._first, self._seen = max(self._first, self._seen.end), ProbeNumbers()
        self._epoch += 1
        self._begin(DriftState.ACKNOWLEDGED)
        return self.reading()

    def recalibrate(self, calibration: Calibration) -> DriftReading:
        """Goes on watching, from what is normal now. Raises InvalidInput unless a change was acknowledged."""
        if self._state is not DriftState.ACKNOWLEDGED:
            raise InvalidInput(
                "state", f"is {self._state}; acknowledge() first: a new calibration forgets all evidence"
            )
        self._calibration = calibration
        self._begin(DriftState.OK)
        return self.reading()

    def _begin(self, state: DriftState) -> None:
        self._banks = Banks(self._calibration)
        self._alarmed, self._alarm_probe = [], None
        self._state = state

    def detectable_shift(self, probes: float) -> float:
        """The shift of a probe score, in its standard deviations, that so many probes find (the planning rule)."""
        return detectable_shift(probes, self.threshold)

    def to_json(self) -> str:
        """All of the state but the calibration, of which it holds the hash."""
        return json.dumps(
            {
                "format": FORMAT,
                "config": asdict(self.config),
                "calibration": self._calibration.fingerprint(),
                "state": self._state.value,
                "epoch": self._epoch,
                "first": self._first,
                "seen": self._seen.ranges,
                "alarmed": self._alarmed,
                "alarm_probe": self._alarm_probe,
                "banks": self._banks.kept(),
            }
        )

    @classmethod
    def from_json(cls, text: str, calibration: Calibration) -> Detector:
        """The detector as it was. Raises InvalidInput for another calibration, or for what is no such state."""
        try:
            kept = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidInput("state", f"is no JSON ({error}); start a new detector") from error
        if not isinstance(kept, dict) or kept.get("format") != FORMAT:
            raise InvalidInput("state", f"is not of format {FORMAT}; start a new detector")
        if kept.get("calibration") != calibration.fingerprint():
            raise InvalidInput("calibration", "is not the one the state was kept with; load that one, or start anew")
        try:
            detector = cls(calibration, DriftConfig(**kept["config"]))
            detector._restore(kept)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput("state", f"cannot be read ({error!r}); start a new detector") from error
        return detector

    @classmethod
    def recalibrated(cls, text: str, calibration: Calibration) -> Detector:
        """Goes on after to_json() with another calibration: all evidence is gone, an alarm that was raised is not.

        For what was acknowledged, and for numbers that another machine or library has rounded otherwise.
        """
        try:
            kept = json.loads(text)
            detector = cls(calibration, DriftConfig(**kept["config"]))
            detector._epoch = int(kept["epoch"])
            detector._first = max(int(kept["first"]), ProbeNumbers(kept["seen"]).end)
            if DriftState(kept["state"]) is DriftState.DRIFT:
                detector._state = DriftState.DRIFT
                detector._alarmed = [str(kind) for kind in kept["alarmed"] if kind in calibration.kinds]
                detector._alarm_probe = int(kept["alarm_probe"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput("state", f"cannot be read ({error!r}); start a new detector") from error
        return detector

    def _restore(self, kept: dict[str, Any]) -> None:
        self._banks.restore(kept["banks"])
        self._state = DriftState(kept["state"])
        self._epoch, self._first = int(kept["epoch"]), int(kept["first"])
        self._seen = ProbeNumbers(kept["seen"])
        self._alarmed = [str(kind) for kind in kept["alarmed"]]
        self._alarm_probe = None if kept["alarm_probe"] is None else int(kept["alarm_probe"])
