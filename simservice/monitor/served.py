"""What the served world says one step ahead of real states, and how unusual its errors are. A client of the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simservice.fidelity.attribution import POLICY_SHIFT, SERVED_MODEL, ServedScorer
from simservice.fidelity.banks import Calibration
from simservice.fidelity.probe_scores import ProbeStatistics
from simservice.fidelity.support import SupportDistance
from simservice.fidelity.traces import Traces
from simservice.monitor.imagine import DreamPlayer
from simservice.monitor.normal import Normal
from simservice.monitor.reality import Window
from simservice.monitor.shadow import probe_traces
from simservice.types import Array, Episode

MOST_CALIBRATION = 500  # probes of each policy
LEAST_CALIBRATION = 100


@dataclass(frozen=True)
class ServedNormal:
    """How wrong one version of a world usually is, one step ahead of the probes that tell what is normal."""

    version: str
    scorer: ServedScorer
    support: SupportDistance
    calibration: Calibration

    @classmethod
    def measured(cls, player: DreamPlayer, normal: Normal) -> ServedNormal:
        """Grounds the world in every step of some calibration probes of each policy."""
        support = _support(normal)
        scorer = ServedScorer.fitted(normal.reference, support.of(normal.reference))
        statistics = {}
        for name, episodes in normal.episodes.items():
            some = episodes[:MOST_CALIBRATION]
            traces = probe_traces(some, normal.action_space, normal.horizon)
            statistics[name] = scorer.measure(traces, one_step(player, some, traces), support.of(traces))
        return cls(player.spec.version, scorer, support, Calibration(statistics, directions=False))

    def measure(self, player: DreamPlayer, episodes: Sequence[Episode], normal: Normal) -> ProbeStatistics:
        """Statistics of the served world's errors, one an episode."""
        traces = probe_traces(episodes, normal.action_space, normal.horizon)
        return self.scorer.measure(traces, one_step(player, episodes, traces), self.support.of(traces))

    def save(self, path: Path) -> None:
        """Into one file of plain arrays; measuring again would round otherwise."""
        arrays: dict[str, Any] = {"scale": self.scorer.scale, "known": self.scorer.known}
        for policy, statistics in self.calibration.by_policy.items():
            for kind, scores in statistics.scores.items():
                arrays[f"{kind}/{policy}"] = scores
        draft = path.with_suffix(".tmp")
        with draft.open("wb") as file:
            np.savez(file, version=self.version, **arrays)
        draft.rename(path)

    @classmethod
    def load(cls, path: Path, normal: Normal) -> ServedNormal:
        """As it was saved."""
        with np.load(path, allow_pickle=False) as found:
            policies = [key.partition("/")[2] for key in found.files if key.startswith(f"{SERVED_MODEL}/")]
            statistics = {
                name: _statistics(found[f"{SERVED_MODEL}/{name}"], found[f"{POLICY_SHIFT}/{name}"]) for name in policies
            }
            scorer = ServedScorer(found["scale"], float(found["known"]))
            return cls(str(found["version"]), scorer, _support(normal), Calibration(statistics, directions=False))


def one_step(player: DreamPlayer, episodes: Sequence[Episode], traces: Traces) -> Array:
    """(N, H, D) what the world says follows each real step; zeros where a window has none."""
    window, step = np.nonzero(traces.valid)
    windows = [Window(int(episode), int(start)) for episode, start in zip(window, step, strict=True)]
    said = player.replay(list(episodes), windows, 1, 1, 0)
    prediction = np.zeros_like(traces.observation[:, 1:])
    prediction[window, step] = said.observation[:, 0, 1]
    return prediction


def _support(normal: Normal) -> SupportDistance:
    reference = normal.reference
    assert reference.action is not None
    return SupportDistance.fitted(reference.observation[:, :-1][reference.valid], reference.action[reference.valid])


def _statistics(served: Array, shift: Array) -> ProbeStatistics:
    empty = np.zeros((len(served), 0, 0))
    return ProbeStatistics(
        scores={SERVED_MODEL: served, POLICY_SHIFT: shift},
        design=empty,
        moment={SERVED_MODEL: empty, POLICY_SHIFT: empty},
    )
