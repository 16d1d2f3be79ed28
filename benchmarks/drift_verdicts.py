"""What follows an alarm in the drift benchmark: which cause is named, and that watching goes on after it is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from drift_lines import C, Line, Size
from drift_served import USERS, Served
from drift_streams import CARTPOLE, Recording, Watch, record, replay
from planted_worlds import Reality, play_cartpole

from simservice.fidelity.attribution import POLICY_SHIFT, SERVED_MODEL, Cause, attribute
from simservice.fidelity.drift import Detector, DriftConfig, DriftState

CAUSES: tuple[tuple[Cause, tuple[Reality, ...], float, tuple[tuple[float, ...], ...]], ...] = (
    # what moved; reality as it is; how broken the served model is; where users' episodes start
    (
        Cause.REALITY,
        (Reality(gravity=12), Reality(length=1.5), Reality(force=0.9), Reality(delay=1)),
        0.0,
        ((0, 0, 0, 0), (1.2, 0, 0, 0)),
    ),
    (Cause.SERVED_MODEL, (Reality(),), 0.05, ((0, 0, 0, 0),)),
    (Cause.POLICY, (Reality(),), 0.0, ((0, 0, 0, 1.5), (0, 0, 0, -1.5))),
    (Cause.RIG, (Reality(gravity=9.9), Reality(rounding=1e-5)), 0.0, ((0, 0, 0, 0),)),
    (Cause.POLICY_SHIFT, (Reality(),), 0.0, ((0.4, 0, 0, 0), (-0.4, 0, 0, 0))),
)


def attribution(size: Size, watch: Watch, probes: int = 60) -> Iterator[Line]:
    """Each row planted as often as asked; the verdict after 60 probes of ours and 60 episodes of users."""
    right, planted = 0, 0
    for cause, realities, broken, starts in CAUSES:
        correct = 0
        for trial in range(size.causes):
            served = Served.fitted(trial % 4)
            calibration = served.calibration(trial % 4, size.served_calibration)
            changed, start = realities[trial % len(realities)], starts[trial // len(realities) % len(starts)]
            real = replay(watch.calibration, record(watch, 1, probes, 900 + trial, changed), C)
            measured = (served.broken(broken, trial) if broken else served).measure(
                play_cartpole(probes, USERS, changed, np.random.default_rng([trial, 13]), start)
            )
            detector = Detector(calibration, DriftConfig(mean_probes_to_false_alarm=C))
            for number in range(probes):
                reading = detector.update(number, measured[number : number + 1], "users")
            verdict = attribute(
                reality_alarm=bool((real.first() > 0).any()),
                served_up=SERVED_MODEL in reading.alarmed,
                outside_support=POLICY_SHIFT in reading.alarmed,
            )
            correct += verdict.cause is cause
        right, planted = right + correct, planted + size.causes
        yield Line(f"cause: {cause.value}", "-", f"{correct} of {size.causes} right", True)
    yield Line("causes named rightly", ">= 95 %", f"{right / planted:.1%}", right >= 0.95 * planted)


def recovery(size: Size, watch: Watch) -> Iterator[Line]:
    """Gravity becomes 12, is acknowledged and calibrated for; then 1,000 quiet probes; then the force falls."""
    first, second = Reality(gravity=12), Reality(gravity=12, force=0.9)
    ground = replace(CARTPOLE, reality=first)
    renewed = Watch.fitted(ground, reference=size.reference, calibration=size.calibration, seed=6)
    changed = record(watch, size.recoveries, 30, 1000, first)
    calm = record(renewed, size.recoveries, size.recovery_probes, 1100)
    changed_again = record(renewed, size.recoveries, 60, 1200, second)
    again, quiet, found = 0, 0, 0
    for trial in range(size.recoveries):
        detector = Detector(watch.calibration, DriftConfig(mean_probes_to_false_alarm=C))
        _feed(detector, changed, trial, 0)
        again += detector.reading().state is DriftState.DRIFT
        detector.acknowledge()
        detector.recalibrate(renewed.calibration)
        _feed(detector, calm, trial, 30)
        quiet += not detector.reading().alarmed
        _feed(detector, changed_again, trial, 30 + size.recovery_probes)
        found += detector.reading().state is DriftState.DRIFT
    every = f"{size.recoveries} of {size.recoveries}"
    yield Line("first change found", every, f"{again}", again == size.recoveries)
    name = f"no alarm for {size.recovery_probes} probes after acknowledgement"
    yield Line(name, every, f"{quiet}", quiet == size.recoveries)
    yield Line("second change found", every, f"{found}", found == size.recoveries)


def _feed(detector: Detector, recording: Recording, stream: int, first: int) -> None:
    for number, probe in enumerate(recording.stream(stream)):
        detector.update(first + number, probe, recording.policy[number])
