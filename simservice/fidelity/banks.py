"""Evidence of change by kind, for many streams of probes at once, as arrays. Knows neither ids nor states nor alarms.

A score's p-value is taken among calibration probes of the same policy. A policy that was not calibrated gets, score by
score, the largest p-value over all policies that were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simservice.errors import InvalidInput
from simservice.fidelity.probe_scores import ProbeStatistics
from simservice.fidelity.sequential import BETS, advance, conformal_p_values, evidence, ranked
from simservice.types import Array

BLOCK = 10  # probes between two looks for the direction of a change
BLOCKS = 10  # of them that a direction is learned from
SHRINKAGE = 30.0  # steps' worth of belief that there is no direction
LEAST_CALIBRATION = 100
UNKNOWN_POLICY = -1

_PValues = Callable[[Array, int], Array]
"""Of some streams' probes, among one policy's calibration."""


@dataclass(frozen=True)
class Calibration:
    """Probes of times when nothing had changed, by policy; none of them was used to fit the monitor model."""

    by_policy: Mapping[str, ProbeStatistics]
    directions: bool = True  # whether changes without a known shape are looked for, too

    def __post_init__(self) -> None:
        for name, probes in self.by_policy.items():
            if len(probes) < LEAST_CALIBRATION:
                problem = f"of policy {name!r} holds {len(probes)} probes; at least {LEAST_CALIBRATION} are needed"
                raise InvalidInput("calibration", problem)
        if not self.by_policy:
            raise InvalidInput("calibration", "holds no policy")

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is watched."""
        return tuple(next(iter(self.by_policy.values())).scores)

    def code(self, policy: str | None) -> int:
        """The number of a policy; UNKNOWN_POLICY for one that was not calibrated."""
        names = list(self.by_policy)
        return names.index(policy) if policy in names else UNKNOWN_POLICY

    @property
    def luck_shape(self) -> tuple[int, int]:
        """(kinds, scores) of the random numbers that a probe needs."""
        first = next(iter(self.by_policy.values()))
        return len(self.kinds), 1 + max(scores.shape[1] for scores in first.scores.values())

    def fingerprint(self) -> str:
        """A hash of every number."""
        digest = hashlib.sha256()
        for name, probes in self.by_policy.items():
            digest.update(name.encode())
            for array in (*probes.scores.values(), probes.design, *probes.moment.values()):
                digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        return digest.hexdigest()


class Banks:
    """The evidence of `streams` streams, each of which gets one probe an update."""

    def __init__(self, calibration: Calibration, streams: int = 1) -> None:
        self.calibration = calibration
        self.streams = streams
        self.count = 0  # updates so far
        parts = list(calibration.by_policy.values())
        self._sorted = {
            kind: [np.sort(part.scores[kind], axis=0) for part in parts] for kind in calibration.kinds
        }  # (n, S) each
        extra = 1 if calibration.directions else 0
        self.processes = {
            kind: np.zeros((streams, parts[0].scores[kind].shape[1] + extra, BETS)) for kind in calibration.kinds
        }
        features = parts[0].design.shape[-1]
        # Sums over the complete blocks, the newest last; the row after them is the block that is being filled.
        self.designs = np.zeros((BLOCKS + 1, streams, features, features))
        self.moments = {
            kind: np.zeros((BLOCKS + 1, streams, *parts[0].moment[kind].shape[1:])) for kind in self._directed()
        }
        self._directions: dict[str, _Direction] = {}

    def _directed(self) -> tuple[str, ...]:
        return self.calibration.kinds if self.calibration.directions else ()

    def update(self, probes: ProbeStatistics, policy: Array, luck: Array) -> None:
        """One more probe of each stream; `policy` (streams,) codes, `luck` (streams, kinds, scores) in [0, 1)."""
        for number, kind in enumerate(self.calibration.kinds):
            columns = [
                _by_policy(policy, self._fixed(probes, kind, score, luck[:, number, score]), len(self._sorted[kind]))
                for score in range(probes.scores[kind].shape[1])
            ]
            if kind in self._directions:
                tried = self._directed_by(probes, kind, luck[:, number, len(columns)])
                columns.append(_by_policy(policy, tried, len(self._sorted[kind])))
            elif self.calibration.directions:
                columns.append(np.full(self.streams, np.nan))
            self.processes[kind] = advance(self.processes[kind], np.stack(columns, axis=1))
        self._remember(probes)

    def _fixed(self, probes: ProbeStatistics, kind: str, score: int, luck: Array) -> _PValues:
        def p_values(rows: Array, code: int) -> Array:
            calibration = self._sorted[kind][code][:, score]
            return conformal_p_values(probes.scores[kind][rows, score], calibration, luck[rows])

        return p_values

    def _directed_by(self, probes: ProbeStatistics, kind: str, luck: Array) -> _PValues:
        def p_values(rows: Array, code: int) -> Array:
            return self._directions[kind].p_values(probes[rows], kind, rows, code, luck[rows])

        return p_values

    def _remember(self, probes: ProbeStatistics) -> None:
        self.count += 1
        if not self.calibration.directions:
            return
        self.designs[-1] += probes.design
        for kind, blocks in self.moments.items():
            blocks[-1] += probes.moment[kind]
        if self.count % BLOCK == 0:
            for blocks in (self.designs, *self.moments.values()):
                blocks[:-1] = blocks[1:]
                blocks[-1] = 0.0
            self.learn_directions()

    def learn_directions(self) -> None:
        """From the last complete blocks, for the next one: what a probe is judged by never knew it."""
        if self.count < BLOCK:
            return
        design = self.designs[:-1].sum(axis=0) + SHRINKAGE * np.eye(self.designs.shape[-1])
        parts = list(self.calibration.by_policy.values())
        self._directions = {
            kind: _Direction(np.linalg.solve(design, blocks[:-1].sum(axis=0)), parts, kind)
            for kind, blocks in self.moments.items()
        }

    def evidence(self) -> dict[str, Array]:
        """(streams,) by kind: the average Shiryaev-Roberts process, whose mean is at most `count` without a change."""
        return {kind: evidence(processes) for kind, processes in self.processes.items()}

    def kept(self) -> dict[str, Any]:
        """All that further updates depend on beside the calibration, as JSON values."""
        return {
            "count": self.count,
            "processes": {kind: array.tolist() for kind, array in self.processes.items()},
            "designs": self.designs.tolist(),
            "moments": {kind: array.tolist() for kind, array in self.moments.items()},
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Goes on from what was kept. Raises KeyError or ValueError for what does not fit."""
        self.processes = {kind: _like(kept["processes"][kind], array) for kind, array in self.processes.items()}
        self.designs = _like(kept["designs"], self.designs)
        self.moments = {kind: _like(kept["moments"][kind], array) for kind, array in self.moments.items()}
        self.count = int(kept["count"])
        if self.calibration.directions:
            self.learn_directions()


def _like(values: Any, array: Array) -> Array:
    found = np.array(values, dtype=np.float64).reshape(array.shape)
    if not np.isfinite(found).all():
        raise ValueError("holds numbers that are not finite")
    return found


class _Direction:
    """What each stream's residuals leaned to lately (streams, F, D), and how much calibration probes do."""

    def __init__(self, weights: Array, calibration: list[ProbeStatistics], kind: str) -> None:
        self._weights = weights
        streams = len(weights)
        outer = (weights @ weights.transpose(0, 2, 1)).reshape(streams, -1).T  # (F * F, streams)
        flat = weights.reshape(streams, -1).T  # (F * D, streams)
        self._calibration = [
            _leaning(part.moment[kind].reshape(len(part), -1) @ flat, part.design.reshape(len(part), -1) @ outer)
            for part in calibration
        ]  # (n, streams) each

    def p_values(self, probes: ProbeStatistics, kind: str, rows: Array, code: int, luck: Array) -> Array:
        """(rows,) of the streams `rows`, among the calibration probes of one policy."""
        weights = self._weights[rows]
        inner = np.einsum("sfd,sfd->s", probes.moment[kind], weights)
        squared = np.einsum("sfg,sfd,sgd->s", probes.design, weights, weights, optimize=True)
        score = _leaning(inner, squared)
        known = self._calibration[code][:, rows]
        above, equal = (known > score).sum(axis=0), (known == score).sum(axis=0)
        return ranked(above, equal, luck, len(known))


def _leaning(inner: Array, squared: Array) -> Array:
    """The normalised inner product, about standard normal without a change; rounding's leftovers are ties."""
    return np.round(inner / np.sqrt(np.maximum(squared, 1e-18)), 3)


def _by_policy(policy: Array, measure: Callable[[Array, int], Array], policies: int) -> Array:
    """The largest of measure(streams, code) over the policies that a stream's probe may be of."""
    found = np.zeros(len(policy))
    for code in range(policies):
        rows = np.flatnonzero((policy == code) | (policy == UNKNOWN_POLICY))
        if len(rows):
            found[rows] = np.maximum(found[rows], measure(rows, code))
    return found


def probe_luck(probe: Array, shape: tuple[int, ...], salt: int = 0) -> Array:
    """(N, *shape) numbers in [0, 1), a function of the probe's number alone: the same probe has the same luck."""
    count = int(np.prod(shape))
    numbers = np.asarray(probe, dtype=np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
    offset = (salt + 1) * 0xD1342543DE82EF95 % 2**64
    mixed = (numbers + np.uint64(offset)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = np.bitwise_xor(mixed, np.right_shift(mixed, np.uint64(shift))) * np.uint64(factor)
    luck = np.right_shift(mixed, np.uint64(11)).astype(np.float64) / 2.0**53
    return np.asarray(luck.reshape(len(probe), *shape))
