"""What users' reported episodes say beside the monitor's own probes. They corroborate; alone they alarm nobody.

Evidence is kept by reporter, so that one who reports falsely, or much, moves nobody else's. Two who agree are a reason
to probe faster, and nothing more: whoever reports chooses what is reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from simservice.errors import InvalidInput
from simservice.fidelity.attribution import POLICY_SHIFT, Attribution, attribute_readings
from simservice.fidelity.drift import Detector, DriftConfig, DriftState
from simservice.fidelity.probe_scores import ProbeStatistics
from simservice.monitor.normal import Normal
from simservice.monitor.served import ServedNormal

MOST_REPORTERS = 64
AGREEING = 2
"""Independent reporters who see a change: then it is worth looking harder."""


@dataclass
class Reporter:
    """One tenant's evidence, of reality and of the served world."""

    reality: Detector
    served: Detector
    episodes: int = 0


@dataclass
class Corroboration:
    """All reporters of a world, and how far their reports were read."""

    normal: Normal
    served: ServedNormal
    config: DriftConfig
    after: int = 0  # the last report that was read
    episodes: int = 0
    reporters: dict[str, Reporter] = field(default_factory=dict)

    def add(self, name: str, reality: ProbeStatistics, served: ProbeStatistics) -> None:
        """Counts one reported episode. Nobody calibrated its policy: it is held against all that were."""
        if name not in self.reporters:
            if len(self.reporters) >= MOST_REPORTERS:
                quietest = min(self.reporters, key=lambda known: self.reporters[known].episodes)
                del self.reporters[quietest]
            self.reporters[name] = self._new()
        reporter = self.reporters[name]
        reporter.reality.update(reporter.episodes, reality)
        reporter.served.update(reporter.episodes, served)
        reporter.episodes += 1
        self.episodes += 1

    @property
    def agreeing(self) -> int:
        """Reporters whose episodes show a changed reality."""
        return sum(one.reality.reading().state is DriftState.DRIFT for one in self.reporters.values())

    @property
    def suspicious(self) -> bool:
        """Whether probes should come faster."""
        return self.agreeing >= AGREEING

    def policy_shift(self) -> float:
        """log10 evidence that users go where the world was never taught.

        The second largest of all reporters', so that none moves it alone; the only one's where there is one.
        """
        found = sorted(one.served.reading().log10_evidence[POLICY_SHIFT] for one in self.reporters.values())
        return found[-2] if len(found) > 1 else (found[0] if found else 0.0)

    def verdicts(self) -> list[Attribution]:
        """What moved, by each reporter's episodes alone."""
        return [attribute_readings(one.reality.reading(), one.served.reading()) for one in self.reporters.values()]

    def kept(self) -> dict[str, Any]:
        """All of it but what is normal, as JSON values."""
        return {
            "after": self.after,
            "episodes": self.episodes,
            "version": self.served.version,
            "reporters": {
                name: {"reality": one.reality.to_json(), "served": one.served.to_json(), "episodes": one.episodes}
                for name, one in self.reporters.items()
            },
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Goes on where it was. Evidence against another normal or version is dropped, the place is not."""
        self.after, self.episodes = int(kept["after"]), int(kept["episodes"])
        if kept["version"] != self.served.version:
            return
        for name, one in kept["reporters"].items():
            try:
                self.reporters[name] = Reporter(
                    Detector.from_json(one["reality"], self.normal.calibration),
                    Detector.from_json(one["served"], self.served.calibration),
                    int(one["episodes"]),
                )
            except InvalidInput:  # of an earlier calibration
                continue

    def _new(self) -> Reporter:
        return Reporter(Detector(self.normal.calibration, self.config), Detector(self.served.calibration, self.config))
