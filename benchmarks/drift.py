"""Holds drift detection to its word: false alarms, delays, causes and recovery, beside river's detectors and a dummy.

    python benchmarks/drift.py [--short] [--out runs/drift]

Prints a line for each claim (bar, seen), writes summary.json, and exits with 1 when a line falls short. All worlds are
simulated in numpy, step for step Gymnasium's; every number comes from fixed seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from drift_baselines import beside_change, beside_null, compare, quick_makers, quiet_scores, smallest_changes
from drift_lines import C_FALSE, KINDS, SHORT, C, Line, Size
from drift_served import USERS, Served, advance_served
from drift_streams import (
    CARTPOLE,
    CHUNK,
    NOISY_CARTPOLE,
    NOISY_REWARD,
    PENDULUM,
    Alarms,
    Recording,
    Watch,
    note,
    record,
    replay,
    replay_in_disorder,
    watch_streams,
)
from drift_verdicts import attribution, recovery
from planted_worlds import Reality, play_cartpole

from simservice.fidelity.banks import Banks, Calibration
from simservice.fidelity.sequential import advance, evidence, probes_until_alarm
from simservice.types import Array


def false_alarms(size: Size, watch: Watch) -> Iterator[Line]:
    """Every null; each at most 3 in 3000 streams of 50 probes, of any kind."""
    counts: dict[str, int] = {}
    repeats, recordings = 0, []
    versions = [(served, served.calibration(seed, size.served_calibration)) for seed, served in _versions()]
    for start in range(0, size.null_streams, CHUNK):
        streams = min(CHUNK, size.null_streams - start)
        recording = record(watch, streams, size.null_probes, 100 + start)
        recordings.append(recording)
        disordered, more = replay_in_disorder(watch.calibration, recording, C_FALSE, start)
        repeats += more
        same = replay(watch.calibration, recording, C_FALSE).first() > 0
        restarted = replay(watch.calibration, recording, C_FALSE, restart_at=size.null_probes // 2).first() > 0
        for name, found in (
            ("same policies", same),
            ("monitor restarted in mid-stream", restarted),
            ("reports repeated and reordered", disordered.first() > 0),
            ("model rollout in mid-stream, served model watched, too", same | _rollout(size, versions, streams, start)),
        ):
            counts[name] = counts.get(name, 0) + int(found.sum())
    for name, count in counts.items():
        beside = beside_null(recordings) if name == "same policies" else {}
        yield _null_line(size, name + (f" ({repeats} repeats)" if "repeated" in name else ""), count, beside)
    for name, policy in (
        ("random policy", "random"),
        ("epsilon-0.6, a policy never calibrated", "epsilon-0.6"),
        ("good policy", "good"),
    ):
        recordings = []
        yield _null_line(size, name, alarmed(_null(size, watch, 200, [policy], recordings)), beside_null(recordings))
    other = Watch.fitted(CARTPOLE, reference=size.reference, calibration=size.calibration, seed=1)
    recordings = []
    count = alarmed(_null(size, other, 300, recordings=recordings))
    yield _null_line(size, "other seeds of model, calibration and probes", count, beside_null(recordings))
    fewer = replace(size, null_streams=-(-size.null_streams // 3))
    for ground in (NOISY_CARTPOLE, PENDULUM):
        other = Watch.fitted(ground, reference=size.reference, calibration=size.calibration, seed=2)
        recordings = []
        yield _null_line(
            fewer, ground.name, alarmed(_null(fewer, other, 400, recordings=recordings)), beside_null(recordings)
        )


def _null_line(size: Size, name: str, alarms: int, beside: dict[str, str]) -> Line:
    allowed = math.ceil(size.null_streams / 1000)
    bar = f"<= {allowed} alarms in {size.null_streams} streams x {size.null_probes} probes"
    return Line(f"no change: {name}", bar, str(alarms), alarms <= allowed, beside)


def _versions() -> Iterator[tuple[int, Served]]:
    """Two of a served world."""
    for seed in (0, 1):
        yield seed, Served.fitted(seed)


def alarmed(alarms: Alarms) -> int:
    """How many streams did."""
    return int((alarms.first() > 0).sum())


def _null(
    size: Size,
    watch: Watch,
    seed: int,
    policies: list[str] | None = None,
    recordings: list[Recording] | None = None,
) -> Alarms:
    return watch_streams(
        watch,
        streams=size.null_streams,
        probes=size.null_probes,
        c=C_FALSE,
        seed=seed,
        policies=policies,
        recordings=recordings,
    )


def _rollout(size: Size, versions: list[tuple[Served, Calibration]], streams: int, start: int) -> Array:
    """Which streams alarm about the served world, that begins anew with the new version's own calibration."""
    generator = np.random.default_rng([start, 8])
    found = {kind: np.zeros(streams, dtype=np.int64) for kind in versions[0][1].kinds}
    banks = Banks(versions[0][1], streams)
    for number in range(size.null_probes):
        served, calibration = versions[int(number >= size.null_probes // 2)]
        if number == size.null_probes // 2:
            banks = Banks(calibration, streams)
        probes = served.measure(play_cartpole(streams, USERS, Reality(), generator))
        advance_served(banks, probes, number, 500 + start)
        note(found, banks, C_FALSE, number + 1)
    return np.asarray(np.any([first > 0 for first in found.values()], axis=0))


@dataclass(frozen=True)
class Planted:
    """A change, and how soon it must be found."""

    name: str
    reality: Reality | Callable[[int], Reality]
    steps: float = math.inf  # real transitions, p95
    policies: tuple[str, ...] | None = None
    kind: str = "dynamics"  # that must say so
    probes: int = 60  # played at most


def _ramp(probe: int) -> Reality:
    return Reality(gravity=9.8 + 2.2 * min(probe / 200, 1.0))


PLANTED = (
    Planted("gravity 12", Reality(gravity=12), 400),
    Planted("gravity 10.8", Reality(gravity=10.8), 1500),
    Planted("pole x 1.5", Reality(length=1.5), 200),
    Planted("action noise 10 % (a random one instead)", Reality(flip=0.1), 300),
    Planted("2 % of actions inverted", Reality(flip=0.04), 1000, probes=120),
    Planted("delay of one step", Reality(delay=1), 200),
    Planted("force - 10 %", Reality(force=0.9), 200),
    Planted("reward + 0.1 of its size (it never varies)", Reality(reward_shift=0.1), 3000, kind="reward"),
    Planted("termination at 10 degrees, random policy", Reality(angle=10), 1000, ("random",), "termination"),
)


def delays(size: Size, watch: Watch) -> Iterator[Line]:
    """CartPole, at c = 1e6, p95 over streams."""
    quiet = quiet_scores(watch, size.planted_streams)
    for number, planted in enumerate(PLANTED):
        recordings: list[Recording] = []
        alarms = watch_streams(
            watch,
            streams=size.planted_streams,
            probes=planted.probes,
            c=C,
            seed=700 + number,
            reality=planted.reality,
            policies=planted.policies,
            recordings=recordings,
        )
        probes, steps = alarms.delay(0.95)
        named = float((alarms.probe[planted.kind] > 0).mean())
        yield Line(
            planted.name,
            f"p95 <= {planted.steps:g} transitions, named {planted.kind}",
            f"p95 {steps:g} ({probes:g} probes, p50 {alarms.delay(0.5)[0]:g}), named in {named:.0%}",
            steps <= planted.steps and named >= 0.95,
            beside_change(quiet, recordings) if planted.kind == "dynamics" else {},
        )


def ramp(size: Size, watch: Watch) -> Line:
    """A slow change."""
    recordings: list[Recording] = []
    alarms = watch_streams(
        watch, streams=size.planted_streams, probes=200, c=C, seed=750, reality=_ramp, recordings=recordings
    )
    beside = beside_change(quiet_scores(watch, size.planted_streams), recordings)
    probes = alarms.delay(1.0)[0]
    return Line(
        "gravity 9.8 to 12 over 200 probes",
        "found before probe 200 in all",
        f"last at {probes:g}",
        probes < 200,
        beside,
    )


def other_worlds(size: Size) -> Iterator[Line]:
    """Bars by the planning rule, or for the noisy CartPole those measured before."""
    pendulum = Watch.fitted(PENDULUM, reference=size.reference, calibration=size.calibration, seed=3)
    yield _planned(size, pendulum, "Pendulum: torque - 10 %", Reality(force=0.9), "dynamics", 60)
    yield _planned(size, pendulum, "Pendulum: reward + 0.1 std", Reality(reward_shift=0.3), "reward", 60)
    noisy = Watch.fitted(NOISY_CARTPOLE, reference=size.reference, calibration=size.calibration, seed=4)
    for name, changed, bar in (("force - 10 %", Reality(force=0.9), 200), ("pole x 1.2", Reality(length=1.2), 80)):
        alarms = watch_streams(
            noisy,
            streams=size.planted_streams,
            probes=bar,
            c=C,
            seed=800,
            reality=replace(changed, noise=NOISY_CARTPOLE.reality.noise),
        )
        probes = alarms.delay(0.95)[0]
        yield Line(f"noisy CartPole: {name}", f"p95 <= {bar} probes", f"p95 {probes:g} probes", probes <= bar)
    rewards = Watch.fitted(NOISY_REWARD, reference=size.reference, calibration=size.calibration, seed=5)
    changed = replace(NOISY_REWARD.reality, reward_shift=0.1)
    yield _planned(size, rewards, "reward of pure noise + 0.1 std", changed, "reward", 400)


def _planned(size: Size, watch: Watch, name: str, changed: Reality, kind: str, probes: int) -> Line:
    """Half of all streams must be found within 1.25 x 2 ln(c) / shift^2 probes of the best score (at least 6)."""
    shift = best_shift(watch, changed, kind)
    bar = max(1.25 * probes_until_alarm(shift, C * KINDS), 6.0)
    alarms = watch_streams(watch, streams=size.planted_streams, probes=probes, c=C, seed=810, reality=changed)
    found, p95 = alarms.delay(0.5)[0], alarms.delay(0.95)[0]
    return Line(
        name, f"p50 <= {bar:.0f} probes (shift {shift:.2f} sd)", f"p50 {found:g}, p95 {p95:g} probes", found <= bar
    )


def best_shift(watch: Watch, changed: Reality, kind: str) -> float:
    """Of the fixed scores of a kind, in standard deviations, no more than a p-value can tell."""
    shifts = []
    for name, known in watch.calibration.by_policy.items():
        traces = watch.ground.play(2000, name, changed, np.random.default_rng(11))
        scores, usual = watch.scorer.measure(traces).scores[kind], known.scores[kind]
        shifts.append((scores.mean(axis=0) - usual.mean(axis=0)) / np.maximum(usual.std(axis=0), 1e-9))
    return float(np.clip(np.mean(shifts, axis=0).max(), 1e-3, 3.0))


def pure_shift(size: Size) -> Line:
    """A Gaussian score that shifts by a quarter of its standard deviation, with exact p-values."""
    generator = np.random.default_rng(12)
    processes = np.zeros((2 * size.planted_streams, 1, advance(np.zeros((1, 1, 1)), np.ones((1, 1))).shape[-1]))
    found = np.full(len(processes), math.inf)
    for number in range(1, 1201):
        z = generator.normal(0.25, 1.0, (len(processes), 1))
        processes = advance(processes, 0.5 * np.vectorize(math.erfc)(z / math.sqrt(2.0)))
        found[(evidence(processes) >= C) & np.isinf(found)] = number
    p95 = float(np.quantile(found, 0.95, method="higher"))
    return Line("any world: a score shifts by 0.25 sd", "p95 <= 700 probes", f"p95 {p95:g} probes", p95 <= 700)


def scoring(watch: Watch) -> Line:
    """Processor time a transition: residuals, ranks and sums of probes as they come, 64 at once."""
    traces = watch.ground.play(64, watch.ground.policies[0], watch.ground.reality, np.random.default_rng(15))
    steps, rounds = int(traces.valid.sum()), 20
    watch.scorer.measure(traces)
    began = time.process_time()
    for _ in range(rounds):
        watch.scorer.measure(traces)
    micros = (time.process_time() - began) / rounds / steps * 1e6
    return Line("scoring a transition, ranks and sums included", "<= 50 us", f"{micros:.1f} us", micros <= 50)


def everything(size: Size) -> Iterator[Line]:
    """All lines."""
    watch = Watch.fitted(CARTPOLE, reference=size.reference, calibration=size.calibration, seed=0)
    yield from false_alarms(size, watch)
    yield from delays(size, watch)
    yield ramp(size, watch)
    yield from other_worlds(size)
    yield pure_shift(size)
    yield from attribution(size, watch)
    yield from recovery(size, watch)
    yield scoring(watch)


def main() -> int:
    """The exit status: 0 if every line holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a minute's worth instead of the full protocol")
    parser.add_argument("--out", type=Path, default=Path("runs/drift"))
    options = parser.parse_args()
    size = SHORT if options.short else Size()
    began = time.monotonic()
    lines: list[Line] = []
    others = list(quick_makers())
    print(f"{'line':<78} {'bar':<44} {'seen':<46} " + "".join(f"{name:<13}" for name in others))
    for line in everything(size):
        lines.append(line)
        print(line.row(others), flush=True)
    detectable = smallest_changes(size.reference)
    baselines = compare(size.planted_streams if options.short else 40)
    seconds = round(time.monotonic() - began, 1)
    options.out.mkdir(parents=True, exist_ok=True)
    summary = {
        "size": asdict(size),
        "lines": [asdict(line) for line in lines],
        "detectable": detectable,
        "baselines": baselines,
        "seconds": seconds,
        "holds": all(line.holds for line in lines),
    }
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    short = [line.name for line in lines if not line.holds]
    print(f"\n{len(lines) - len(short)} of {len(lines)} lines hold, {seconds} s; {options.out / 'summary.json'}")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
