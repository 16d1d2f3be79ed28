"""Streams of probes for the drift benchmark: worlds to watch, watches fitted to them, and many streams at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from planted_worlds import (
    Act,
    Reality,
    cartpole_good,
    cartpole_random,
    epsilon,
    play_cartpole,
    play_pendulum,
)

from simservice.fidelity.banks import Banks, Calibration, probe_luck
from simservice.fidelity.probe_numbers import ProbeNumbers
from simservice.fidelity.probe_scores import ProbeScorer, ProbeStatistics, joined
from simservice.fidelity.traces import Traces
from simservice.types import Array

CHUNK = 500  # streams at once: what fits the memory of a small machine
CARTPOLE_POLICIES: dict[str, Act] = {
    "random": cartpole_random,
    "epsilon-0.3": epsilon(0.3, cartpole_good),
    "good": cartpole_good,
}
OTHER_POLICIES: dict[str, Act] = {"epsilon-0.6": epsilon(0.6, cartpole_good)}

UNCHANGED = Reality()
Play = Callable[[int, str, Reality, np.random.Generator], Traces]


@dataclass(frozen=True)
class Ground:
    """A world that can be watched."""

    name: str
    play: Play
    policies: tuple[str, ...]  # of our own probes, in turn
    reality: Reality = UNCHANGED


def _cartpole(probes: int, policy: str, reality: Reality, generator: np.random.Generator) -> Traces:
    return play_cartpole(probes, {**CARTPOLE_POLICIES, **OTHER_POLICIES}[policy], reality, generator)


def _pendulum(probes: int, policy: str, reality: Reality, generator: np.random.Generator) -> Traces:
    return play_pendulum(probes, reality, generator)


CARTPOLE = Ground("CartPole", _cartpole, tuple(CARTPOLE_POLICIES))
NOISY_CARTPOLE = replace(CARTPOLE, name="CartPole, noise 0.1", reality=Reality(noise=0.1))
NOISY_REWARD = replace(CARTPOLE, name="CartPole, reward noise 1", reality=Reality(reward_noise=1.0))
PENDULUM = Ground("Pendulum", _pendulum, ("held random",))


@dataclass(frozen=True)
class Watch:
    """A monitor model and its calibration, from a ground as it was."""

    ground: Ground
    scorer: ProbeScorer
    calibration: Calibration

    @classmethod
    def fitted(cls, ground: Ground, *, reference: int, calibration: int, seed: int) -> Watch:
        """From so many reference probes, and calibration probes of each policy."""
        generator = np.random.default_rng([seed, 77])
        share = reference // len(ground.policies)
        parts = [ground.play(share, name, ground.reality, generator) for name in ground.policies]
        scorer = ProbeScorer.fitted(joined_traces(parts), seed)
        known = {
            name: scorer.measure(ground.play(calibration, name, ground.reality, generator)) for name in ground.policies
        }
        return cls(ground, scorer, Calibration(known))


def joined_traces(parts: Sequence[Traces]) -> Traces:
    """All windows of all parts, each a unit of its own."""
    names = ("observation", "action", "reward", "terminated", "truncated", "valid")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Traces(unit=np.arange(len(arrays["valid"])), **arrays)


@dataclass(frozen=True)
class Alarms:
    """When each stream first alarmed: 0 where it never did, else the number of its probe, from 1."""

    probe: dict[str, Array]  # by kind
    steps: Array  # (streams, probes) real steps of each probe

    def first(self) -> Array:
        """(streams,) of any kind; 0 for never."""
        every = np.stack(list(self.probe.values()))
        return np.where((every > 0).any(axis=0), np.where(every > 0, every, np.iinfo(np.int64).max).min(axis=0), 0)

    def found(self) -> float:
        """The share of streams that alarmed."""
        return float((self.first() > 0).mean())

    def delay(self, quantile: float) -> tuple[float, float]:
        """Probes and real steps until the alarm; infinite where too many streams never alarmed."""
        first = self.first()
        steps = np.cumsum(self.steps, axis=1)[np.arange(len(first)), np.maximum(first, 1) - 1]
        ordered = [np.sort(np.where(first > 0, found, np.inf)) for found in (first.astype(float), steps.astype(float))]
        place = int(np.ceil(quantile * len(first))) - 1
        return float(ordered[0][place]), float(ordered[1][place])


def watch_streams(
    watch: Watch,
    *,
    streams: int,
    probes: int,
    c: float,
    seed: int,
    reality: Callable[[int], Reality] | Reality | None = None,
    policies: Sequence[str] | None = None,
    recordings: list[Recording] | None = None,
) -> Alarms:
    """Independent streams of fresh probes, each alarmed as `Detector` would be; `recordings` gets them."""
    parts = []
    for start in range(0, streams, CHUNK):
        recorded = record(watch, min(CHUNK, streams - start), probes, seed + start, reality, policies)
        if recordings is not None:
            recordings.append(recorded)
        parts.append(replay(watch.calibration, recorded, c))
    return joined_alarms(parts)


def joined_alarms(parts: Sequence[Alarms]) -> Alarms:
    """Of all streams."""
    return Alarms(
        {kind: np.concatenate([part.probe[kind] for part in parts]) for kind in parts[0].probe},
        np.concatenate([part.steps for part in parts]),
    )


@dataclass(frozen=True)
class Recording:
    """Streams of probes: probe t of stream s is row [t] and column [s]."""

    probes: list[ProbeStatistics]  # one a time t, of all streams
    number: Array  # (probes, streams)
    policy: list[str]
    steps: Array  # (streams, probes)

    def stream(self, column: int) -> list[ProbeStatistics]:
        """One stream's probes."""
        return [probe[column : column + 1] for probe in self.probes]


def record(
    watch: Watch,
    streams: int,
    probes: int,
    seed: int,
    reality: Callable[[int], Reality] | Reality | None = None,
    policies: Sequence[str] | None = None,
    also: Callable[[Traces, int], None] | None = None,
) -> Recording:
    """Plays and measures the probes of independent streams; `also` is shown each time's probes."""
    generator = np.random.default_rng([seed, 5])
    names = policies if policies is not None else watch.ground.policies
    found, steps, played = [], np.zeros((streams, probes), dtype=np.int64), []
    for number in range(probes):
        now = reality(number) if callable(reality) else reality or watch.ground.reality
        played.append(names[number % len(names)])
        traces = watch.ground.play(streams, played[-1], now, generator)
        steps[:, number] = traces.valid.sum(axis=1)
        found.append(watch.scorer.measure(traces))
        if also is not None:
            also(traces, number)
    numbers = (seed * 1000 + np.arange(streams)) * 10_000 + np.arange(probes)[:, None]
    return Recording(found, numbers, played, steps)


def replay(calibration: Calibration, recording: Recording, c: float, *, restart_at: int | None = None) -> Alarms:
    """What detectors of all streams at once find; at `restart_at` they are kept as JSON and made anew from it."""
    streams, probes = recording.steps.shape
    banks, kinds = Banks(calibration, streams), calibration.kinds
    found = {kind: np.zeros(streams, dtype=np.int64) for kind in kinds}
    for number in range(probes):
        if number == restart_at:
            text = json.dumps(banks.kept())
            banks = Banks(calibration, streams)
            banks.restore(json.loads(text))
        code = np.full(streams, calibration.code(recording.policy[number]))
        banks.update(recording.probes[number], code, probe_luck(recording.number[number], calibration.luck_shape))
        note(found, banks, c, number + 1)
    return Alarms(found, recording.steps)


def replay_in_disorder(calibration: Calibration, recording: Recording, c: float, seed: int) -> tuple[Alarms, int]:
    """The same with each probe reported up to three times, and later than up to twenty others; and the repeats."""
    generator = np.random.default_rng([seed, 9])
    streams, probes = recording.steps.shape
    every = joined(recording.probes)  # row t * streams + s
    codes = np.array([calibration.code(name) for name in recording.policy])
    arrivals = np.zeros((probes, streams), dtype=np.int64)
    repeats = 0
    for column in range(streams):
        copies = np.repeat(np.arange(probes), generator.integers(1, 4, probes))
        copies = copies[np.argsort(copies + generator.uniform(0, 20, len(copies)))]
        numbers = ProbeNumbers()
        new = [probe for probe in copies.tolist() if numbers.add(probe)]
        arrivals[:, column] = new
        repeats += len(copies) - len(new)
    banks, kinds = Banks(calibration, streams), calibration.kinds
    found = {kind: np.zeros(streams, dtype=np.int64) for kind in kinds}
    column = np.arange(streams)
    for number, probe in enumerate(arrivals):
        luck = probe_luck(recording.number[probe, column], calibration.luck_shape)
        banks.update(every[probe * streams + column], codes[probe], luck)
        note(found, banks, c, number + 1)
    return Alarms(found, recording.steps), repeats


def note(found: dict[str, Array], banks: Banks, c: float, number: int) -> None:
    """Writes down which streams alarm for the first time."""
    for kind, evidence in banks.evidence().items():
        found[kind][(evidence >= c * len(found)) & (found[kind] == 0)] = number
