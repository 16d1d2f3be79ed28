"""All that is known of one world's drift, and what follows from it. Knows neither clock nor service nor file.

States: ok → suspect → drift → acknowledged → ok. Reality's detector and its exact replay alarm; the served world's
detector and users' reports only say why.
"""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import asdict, dataclass, field

import numpy as np

from simservice.errors import InvalidInput
from simservice.fidelity.attribution import POLICY_SHIFT, SERVED_MODEL, Attribution, Cause, attribute
from simservice.fidelity.detectable import detectable_change
from simservice.fidelity.drift import Detector, DriftConfig, DriftState
from simservice.fidelity.probe_scores import ProbeStatistics
from simservice.monitor.corroboration import AGREEING, Corroboration
from simservice.monitor.golden import GoldenReplay, GoldenWatch
from simservice.monitor.kept import Kept
from simservice.monitor.normal import Normal
from simservice.monitor.served import ServedNormal
from simservice.monitor.shadow import probe_traces
from simservice.types import Episode

LOG = logging.getLogger(__name__)

GOLDEN = "golden"


@dataclass
class Evidence:
    """One world's detectors, from what is normal on."""

    normal: Normal
    config: DriftConfig
    reality: Detector
    golden: GoldenReplay | None = None
    golden_watch: GoldenWatch = field(default_factory=GoldenWatch)
    served: ServedNormal | None = None
    served_detector: Detector | None = None
    corroboration: Corroboration | None = None
    _detectable: dict[int, tuple[float, dict[str, float]]] = field(default_factory=dict)  # by probes

    @classmethod
    def begun(cls, normal: Normal, config: DriftConfig, kept: Kept) -> Evidence:
        """With what was kept, where it was kept with this normal."""
        if kept.reality is None:
            return cls(normal, config, Detector(normal.calibration, config))
        try:
            reality = Detector.from_json(kept.reality, normal.calibration)
        except InvalidInput as error:
            if json.loads(kept.reality).get("state") != DriftState.ACKNOWLEDGED:  # then it was to begin anew
                LOG.warning("evidence begins anew (%s)", error)
            reality = Detector.recalibrated(kept.reality, normal.calibration)
        return cls(normal, config, reality, golden_watch=GoldenWatch(**kept.golden))

    def serve(self, served: ServedNormal, kept: Kept) -> None:
        """Watches a version of the world from now on; evidence against another is gone."""
        self.served = served
        self.served_detector = Detector(served.calibration, self.config)
        if kept.served is not None and kept.served_version == served.version:
            with contextlib.suppress(InvalidInput):  # it was calibrated anew
                self.served_detector = Detector.from_json(kept.served, served.calibration)
        self.corroboration = Corroboration(self.normal, served, self.config)
        if kept.reports is not None:
            self.corroboration.restore(kept.reports)

    def statistics(self, episode: Episode) -> ProbeStatistics:
        """Of one probe, for reality's detector."""
        return self.normal.scorer.measure(probe_traces([episode], self.normal.action_space, self.normal.horizon))

    def count(self, number: int, episode: Episode, served: ProbeStatistics | None) -> list[str]:
        """Counts a probe; returns the kinds that alarm for the first time by it. A repeated number changes nothing."""
        before = set(self.reality.reading().alarmed)
        reading = self.reality.update(number, self.statistics(episode), episode.policy)
        alarms = [kind for kind in reading.alarmed if kind not in before]
        if served is not None and self.served_detector is not None:
            known = set(self.served_detector.reading().alarmed)
            after = self.served_detector.update(number, served, episode.policy)
            alarms += [kind for kind in after.alarmed if kind not in known]
        return alarms

    @property
    def state(self) -> str:
        """Of names.DRIFT_STATES."""
        reality = self.reality.reading().state
        if reality is DriftState.ACKNOWLEDGED:
            return reality.value
        if reality is DriftState.DRIFT or self.golden_watch.alarmed:
            return DriftState.DRIFT.value
        return DriftState.SUSPECT.value if self.suspicious else DriftState.OK.value

    @property
    def suspicious(self) -> bool:
        """Whether reality should be asked more often."""
        suspect = self.reality.reading().state is DriftState.SUSPECT or self.golden_watch.suspicious
        return suspect or (self.corroboration is not None and self.corroboration.suspicious)

    def verdict(self) -> Attribution:
        """What moved. Our own probes decide; where they are silent, what users saw of policies is told."""
        served = self.served_detector.reading().alarmed if self.served_detector is not None else ()
        own = attribute(
            reality_alarm=bool(self.reality.reading().alarmed) or self.golden_watch.alarmed,
            served_up=SERVED_MODEL in served,
            outside_support=POLICY_SHIFT in served,
        )
        if own.cause is not Cause.NOTHING or self.corroboration is None:
            return own
        told = self.corroboration.verdicts()
        for cause, enough in ((Cause.SERVED_MODEL, AGREEING), (Cause.POLICY, 1), (Cause.POLICY_SHIFT, 1)):
            agreeing = [verdict for verdict in told if verdict.cause is cause]
            if len(agreeing) >= enough:
                return agreeing[0]
        return own

    def log10_evidence(self) -> dict[str, float]:
        """By kind; those of the served world are left out until it is watched."""
        found = dict(self.reality.reading().log10_evidence)
        if self.served_detector is not None and self.corroboration is not None:
            found[SERVED_MODEL] = self.served_detector.reading().log10_evidence[SERVED_MODEL]
            found[POLICY_SHIFT] = self.corroboration.policy_shift()
        return found

    def log10_threshold(self) -> dict[str, float]:
        """By kind."""
        found = {kind: self.reality.reading().log10_threshold for kind in self.normal.calibration.kinds}
        if self.served_detector is not None:
            threshold = self.served_detector.reading().log10_threshold
            found |= {SERVED_MODEL: threshold, POLICY_SHIFT: threshold}
        return found

    def detectable(self, probes: int) -> tuple[float, dict[str, float]]:
        """What so many probes would find: a shift of a score, and a lasting change over the usual change of a step."""
        if probes not in self._detectable:
            self._detectable[probes] = self._found_within(probes)
        return self._detectable[probes]

    def _found_within(self, probes: int) -> tuple[float, dict[str, float]]:
        calm = self.normal.calm
        found = detectable_change(self.normal.scorer, calm, max(1, probes), self.reality.threshold)
        change = np.diff(calm.observation, axis=1)[calm.valid].std(axis=0)
        moving = change > 1e-9
        worst = float((found.observation[moving] / change[moving]).max()) if moving.any() else float("inf")
        spread = float(calm.reward[calm.valid].std())
        size = spread if spread > 1e-9 else max(float(np.abs(calm.reward[calm.valid]).mean()), 1e-9)
        return found.score_shift, {"dynamics": worst, "reward": found.reward / size}

    def acknowledge(self) -> None:
        """The change is known. Nothing counts until there is a new normal."""
        self.reality.acknowledge()
        self.golden_watch = GoldenWatch()

    def keep(self, kept: Kept) -> None:
        """Writes all of it into what is kept."""
        kept.reality = self.reality.to_json()
        kept.golden = asdict(self.golden_watch)
        if self.served is not None and self.served_detector is not None:
            kept.served, kept.served_version = self.served_detector.to_json(), self.served.version
        if self.corroboration is not None:
            kept.reports = self.corroboration.kept()
