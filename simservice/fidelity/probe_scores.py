"""What one probe says: its residuals as a few numbers that grow when reality changes. Knows no past and no threshold.

The unit of evidence is the probe, never the transition: consecutive transitions are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from simservice.errors import InvalidInput
from simservice.fidelity.monitor_model import MonitorModel, Residuals, Transitions, fit_monitor
from simservice.fidelity.traces import Traces
from simservice.types import Array

KINDS = ("dynamics", "reward", "termination")
"""What of reality can change, each watched by itself."""

STRATA = 10  # of predicted uncertainty, within which residuals are ranked
GRAIN = 1e-3  # scores that differ by less are equal: what rounding left over must not be ranked
LARGEST_RESIDUAL = 6.0  # in the sums that directions are learned from
MOST_DIRECTION_FEATURES = 32


@dataclass(frozen=True)
class ProbeStatistics:
    """P probes. Scores by kind, and sums over each probe's steps that directions of change are learned from."""

    scores: dict[str, Array]  # (P, S) by kind
    design: Array  # (P, F, F) sum of f f^T, of f = (1, observation) x (1, action)
    moment: dict[str, Array]  # (P, F, D) sum of f z^T, of the signed residual z, by kind

    def __len__(self) -> int:
        return len(self.design)

    def __getitem__(self, rows: Array | slice) -> ProbeStatistics:
        return ProbeStatistics(
            {kind: scores[rows] for kind, scores in self.scores.items()},
            self.design[rows],
            {kind: moment[rows] for kind, moment in self.moment.items()},
        )


def joined(parts: Sequence[ProbeStatistics]) -> ProbeStatistics:
    """All probes of all parts."""
    return ProbeStatistics(
        {kind: np.concatenate([part.scores[kind] for part in parts]) for kind in parts[0].scores},
        np.concatenate([part.design for part in parts]),
        {kind: np.concatenate([part.moment[kind] for part in parts]) for kind in parts[0].moment},
    )


@dataclass(frozen=True)
class Strata:
    """Residual sizes of reference steps, sorted within strata of predicted uncertainty.

    Ranked among their like, the larger residuals of states that are less sure say nothing: without strata a user who
    merely acts otherwise looked like a changed world in every stream.
    """

    edges: Array  # (STRATA - 1,)
    sizes: tuple[Array, ...]  # sorted, one array a stratum
    extreme: Array  # (STRATA,) the 0.999 quantile

    @classmethod
    def fitted(cls, size: Array, doubt: Array) -> Strata:
        """By the deciles of doubt."""
        edges = np.quantile(doubt, np.arange(1, STRATA) / STRATA)
        place = np.searchsorted(edges, doubt)
        # Where doubt takes few values some strata stay empty: they use all sizes.
        sizes = tuple(np.sort(size[place == k] if np.any(place == k) else size) for k in range(STRATA))
        return cls(edges, sizes, np.array([np.quantile(part, 0.999) for part in sizes]))

    def normal_scores(self, size: Array, doubt: Array) -> tuple[Array, Array]:
        """(N,) ranks within the stratum as normal scores, and the excess over nearly all of the stratum."""
        place = np.searchsorted(self.edges, doubt)
        rank = np.empty(len(size))
        for stratum, known in enumerate(self.sizes):
            rows = place == stratum
            low = np.searchsorted(known, size[rows], side="left")
            high = np.searchsorted(known, size[rows], side="right")
            rank[rows] = ((low + high) / 2.0 + 0.5) / (len(known) + 1.0)
        return ndtri(rank), np.maximum(size - self.extreme[place], 0.0)


@dataclass(frozen=True)
class ProbeScorer:
    """Turns probes into statistics by a monitor model and the reference it was fitted to."""

    model: MonitorModel
    strata: dict[str, Strata]
    actions: int  # columns of the action that tell anything: the last of a one-hot follows from the others

    @classmethod
    def fitted(cls, reference: Traces, seed: int = 0) -> ProbeScorer:
        """From reference episodes, none of which may be used for calibration again."""
        model, residuals = fit_monitor(reference, seed)
        found = {kind: Strata.fitted(_size(signed), doubt) for kind, signed, doubt in _each(residuals)}
        assert reference.action is not None  # or no model could have been fitted
        action = reference.action[reference.valid]
        width = action.shape[1]
        one_hot = width > 1 and bool(np.all(action.sum(axis=1) == 1.0) and np.all((action == 0.0) | (action == 1.0)))
        return cls(model, found, width - 1 if one_hot else width)

    def measure(self, traces: Traces) -> ProbeStatistics:
        """Each window is one probe, from its reset on. Raises InvalidInput for a probe without a step."""
        if not traces.valid[:, 0].all():
            raise InvalidInput("probe", "has no step")
        steps = Transitions.of(traces)
        residuals = self.model.residuals(steps)
        starts = np.flatnonzero(np.r_[True, np.diff(steps.window) > 0])
        length = np.diff(np.r_[starts, len(steps.window)])
        column = np.arange(len(steps.window)) - np.repeat(starts, length)
        basis = self._basis(steps)
        padded = _padded(basis, steps.window, column, traces)
        scores, moment = {}, {}
        for kind, signed, doubt in _each(residuals):
            rank, excess = self.strata[kind].normal_scores(_size(signed), doubt)
            columns = [
                np.add.reduceat(rank, starts) / np.sqrt(length),
                np.maximum.reduceat(rank + excess, starts),
            ]
            clipped = np.clip(signed, -LARGEST_RESIDUAL, LARGEST_RESIDUAL)
            if kind == "reward":  # one number a step: its mean is the likeliest thing to change, in either direction
                mean = np.add.reduceat(clipped[:, 0], starts) / np.sqrt(length)
                columns += [mean, -mean]
            scores[kind] = np.round(np.stack(columns, axis=1) / GRAIN) * GRAIN
            moment[kind] = padded.transpose(0, 2, 1) @ _padded(clipped, steps.window, column, traces)
        return ProbeStatistics(scores, padded.transpose(0, 2, 1) @ padded, moment)

    def _basis(self, steps: Transitions) -> Array:
        """(N, F) of (1, observation) x (1, action), or of both side by side where that is too many."""
        inputs = np.concatenate([steps.observation, steps.action], axis=1)
        x = np.clip((inputs - self.model.inputs.mean) / self.model.inputs.scale, -5.0, 5.0)
        dims = steps.observation.shape[1]
        one = np.ones((len(x), 1))
        states = np.concatenate([one, x[:, :dims]], axis=1)
        actions = np.concatenate([one, x[:, dims : dims + self.actions]], axis=1)
        if states.shape[1] * actions.shape[1] > MOST_DIRECTION_FEATURES:
            return np.concatenate([states, actions[:, 1:]], axis=1)
        return np.asarray((states[:, :, None] * actions[:, None, :]).reshape(len(x), -1))

    def fingerprint(self) -> str:
        """Of the model; strata follow from it and its reference."""
        return self.model.fingerprint()


def _each(residuals: Residuals) -> list[tuple[str, Array, Array]]:
    return [(kind, getattr(residuals, kind), getattr(residuals, f"{kind}_doubt")) for kind in KINDS]


def _size(signed: Array) -> Array:
    """(N,) log(1 + mean squared residual): a single wild dimension counts, and does not drown all ranks."""
    return np.asarray(np.round(np.log1p(np.mean(signed**2, axis=1)) / GRAIN) * GRAIN)


def _padded(rows: Array, window: Array, column: Array, traces: Traces) -> Array:
    """(P, H, ...) with zeros where a probe has ended."""
    found = np.zeros((traces.windows, traces.horizon, rows.shape[1]))
    found[window, column] = rows
    return found
