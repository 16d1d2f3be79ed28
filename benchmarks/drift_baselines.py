"""Other detectors on the very same score of a probe: river's, a test on windows, and one that always alarms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from drift_streams import CARTPOLE, NOISY_CARTPOLE, PENDULUM, Recording, Watch, record, replay
from planted_worlds import Reality
from scipy.stats import ks_2samp

from simservice.fidelity.detectable import detectable_change
from simservice.types import Array

try:
    from river import drift as river
except ImportError:  # an optional extra of developers
    river = None

BEFORE, AFTER = 200, 200  # probes before and after the change
C = 1e6
CHANGES = {
    "gravity 10.8": Reality(gravity=10.8),
    "gravity 12": Reality(gravity=12),
    "action noise 2 %": Reality(flip=0.02),
}


class Windows:
    """Kolmogorov-Smirnov of the last 50 scores against the first 50, once every 50."""

    def __init__(self) -> None:
        self.drift_detected = False
        self._reference: list[float] = []
        self._window: list[float] = []

    def update(self, score: float) -> None:
        """One more score."""
        self.drift_detected = False
        if len(self._reference) < 50:
            self._reference.append(score)
            return
        self._window.append(score)
        if len(self._window) == 50:
            self.drift_detected = bool(ks_2samp(self._reference, self._window).pvalue < 1e-3)
            self._window = []


class Always:
    """What a detector scored by F1 loses against: it alarms at every probe."""

    drift_detected = True

    def update(self, score: float) -> None:
        """Alarms."""


def _makers() -> dict[str, Callable[[], Any]]:
    makers: dict[str, Callable[[], Any]] = {"KS on windows of 50, p < 1e-3": Windows, "always alarms": Always}
    if river is not None:
        makers = {
            "river ADWIN": river.ADWIN,
            "river PageHinkley": river.PageHinkley,
            "river PageHinkley, threshold 5": lambda: river.PageHinkley(threshold=5.0),
            "river KSWIN": lambda: river.KSWIN(seed=0),
            **makers,
        }
    return makers


def quick_makers() -> dict[str, Callable[[], Any]]:
    """Those that stand beside every line they can be asked about."""
    makers: dict[str, Callable[[], Any]] = {"always": Always}
    if river is not None:
        makers = {"ADWIN": river.ADWIN, "PageHinkley5": lambda: river.PageHinkley(threshold=5.0), **makers}
    return makers


def beside_null(recordings: Sequence[Recording]) -> dict[str, str]:
    """In how many streams of unchanged probes each would have alarmed."""
    series = np.concatenate([_scores(recording.probes) for recording in recordings])
    return {name: str(sum(bool(_alarms(make(), row)) for row in series)) for name, make in quick_makers().items()}


def beside_change(before: Array, recordings: Sequence[Recording]) -> dict[str, str]:
    """The share of streams each finds the change in @ its median probe, after quiet probes to learn from."""
    after = np.concatenate([_scores(recording.probes) for recording in recordings])
    series = np.concatenate([before[np.arange(len(after)) % len(before)], after], axis=1)
    quiet = before.shape[1]
    return {
        name: _said(
            np.array([next((at - quiet + 1 for at in _alarms(make(), row) if at >= quiet), 0) for row in series])
        )
        for name, make in quick_makers().items()
    }


def quiet_scores(watch: Watch, streams: int) -> Array:
    """What detectors learn from before a change."""
    return _scores(record(watch, streams, BEFORE, 2500).probes)


def compare(streams: int) -> dict[str, dict[str, str]]:
    """Prints and returns, by detector, false alarms per 1000 probes and the share found @ median delay."""
    watch = Watch.fitted(CARTPOLE, reference=1080, calibration=2000, seed=0)
    before = record(watch, streams, BEFORE, 2000)
    after = {
        name: record(watch, streams, AFTER, 2001 + i, changed) for i, (name, changed) in enumerate(CHANGES.items())
    }
    ours = replay(watch.calibration, before, C)
    table = {"ours, c = 1e6": {"false alarms / 1000": f"{(ours.first() > 0).sum() / streams / BEFORE * 1000:.3g}"}}
    for name, recording in after.items():
        alarms = replay(watch.calibration, recording, C)
        table["ours, c = 1e6"][name] = _said(alarms.first())
    quiet = _scores(before.probes)
    for detector, make in _makers().items():
        false = sum(len(_alarms(make(), row)) for row in quiet)
        table[detector] = {"false alarms / 1000": f"{false / quiet.size * 1000:.3g}"}
        for name, recording in after.items():
            series = np.concatenate([quiet, _scores(recording.probes)], axis=1)
            table[detector][name] = _said(
                np.array([next((at - BEFORE + 1 for at in _alarms(make(), row) if at >= BEFORE), 0) for row in series])
            )
    columns = ["false alarms / 1000", *CHANGES]
    print(f"\n{'on the same score of a probe; share found @ median probes':<60}" + "".join(f"{c:<22}" for c in columns))
    for detector, row in table.items():
        print(f"{detector:<60}" + "".join(f"{row[column]:<22}" for column in columns))
    if river is None:
        print("river is not installed: pip install simservice[dev]")
    return table


def smallest_changes(reference: int) -> dict[str, dict[str, object]]:
    """Prints and returns what a day of one probe a minute would find in each world."""
    found: dict[str, dict[str, object]] = {}
    print(f"\n{'smallest lasting change of the next value found within a day (1,440 probes), by dimension'}")
    for ground in (CARTPOLE, NOISY_CARTPOLE, PENDULUM):
        watch = Watch.fitted(ground, reference=reference, calibration=200, seed=7)
        calm = ground.play(500, ground.policies[0], ground.reality, np.random.default_rng(14))
        change = detectable_change(watch.scorer, calm, 1440, C * len(watch.calibration.kinds))
        found[ground.name] = {"observation": change.observation.tolist(), "reward": change.reward}
        print(f"{ground.name:<24}" + "".join(f"{value:<11.2g}" for value in change.observation))
    return found


def _scores(probes: list[Any]) -> Array:
    return np.stack([probe.scores["dynamics"][:, 0] for probe in probes], axis=1)


def _alarms(detector: Any, series: Array) -> list[int]:
    found = []
    for number, score in enumerate(series.tolist()):
        detector.update(score)
        if detector.drift_detected:
            found.append(number)
    return found


def _said(first: Array) -> str:
    found = first[first > 0]
    return f"{len(found) / len(first):.0%} @ {np.median(found):g}" if len(found) else "0%"
