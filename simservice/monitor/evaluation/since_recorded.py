"""Whether reality has moved since the world's data was recorded: the recorded episodes are the probes of a watch.

Reality as it is now is played for reference and calibration; then every recorded episode's first steps are bet on, one
by one, as the monitor does with new probes. The rate of false alarms is the detector's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simservice.data.collect import RealStepCounter, collect_episodes
from simservice.errors import InvalidInput, RealStepBudgetExceeded
from simservice.fidelity.banks import Calibration
from simservice.fidelity.drift import Detector, DriftReading
from simservice.fidelity.pixels import picture
from simservice.fidelity.probe_scores import ProbeScorer
from simservice.fidelity.traces import Traces
from simservice.monitor.reality import ProbeConfig, Reality, Window, real_traces
from simservice.types import Episode

STEPS = 20  # of an episode: one probe
REFERENCE, CALIBRATION = 150, 500  # episodes of each policy
POLICIES = ("random", "sticky")


@dataclass(frozen=True)
class SinceRecorded:
    """The watch's last reading, or why there is none."""

    reading: DriftReading | None
    why_unknown: str = ""


def drift_since(
    recorded: Sequence[Episode], reality: Reality, config: ProbeConfig, counter: RealStepCounter
) -> SinceRecorded:
    """Bets the recorded episodes against reality now. An episode that stopped short of a probe's length is left out."""
    if not recorded:
        return SinceRecorded(None, "the data it was learned from is not at hand; name it with --data")
    if picture(recorded[0].observation, lead=1) is not None:
        return SinceRecorded(None, "a monitor model reads vectors, and this world has pictures")
    probes = [episode for episode in recorded if episode.terminated or episode.truncated or len(episode) >= STEPS]
    if not probes:
        return SinceRecorded(None, "no recorded episode is long enough for a probe")
    try:
        scorer, calibration = _reality_now(reality, config, counter)
        statistics = scorer.measure(_first_steps(probes, reality))
    except (RealStepBudgetExceeded, InvalidInput) as error:
        return SinceRecorded(None, str(error))
    detector = Detector(calibration)
    for number, episode in enumerate(probes):
        policy = episode.policy if episode.policy in POLICIES else None
        detector.update(number, statistics[number : number + 1], policy)
    return SinceRecorded(detector.reading())


def _reality_now(reality: Reality, config: ProbeConfig, counter: RealStepCounter) -> tuple[ProbeScorer, Calibration]:
    counter.check(len(POLICIES) * (REFERENCE + CALIBRATION) * STEPS // 2)  # refuse early what cannot be afforded
    reference: list[Episode] = []
    known = {}
    for number, policy in enumerate(POLICIES):
        reference += _play(policy, REFERENCE, config, config.seed * 1000 + 500 + number, counter)
    scorer = ProbeScorer.fitted(_first_steps(reference, reality), config.seed)
    for number, policy in enumerate(POLICIES):
        played = _play(policy, CALIBRATION, config, config.seed * 1000 + 600 + number, counter)
        known[policy] = scorer.measure(_first_steps(played, reality))
    return scorer, Calibration(known)


def _play(policy: str, episodes: int, config: ProbeConfig, seed: int, counter: RealStepCounter) -> list[Episode]:
    return collect_episodes(
        config.env_id,
        episodes=episodes,
        seed=seed,
        policy="random" if policy == "random" else "sticky",
        max_steps=STEPS,
        env_kwargs=config.env_kwargs,
        attributes=config.attributes,
        budget=counter,
    )


def _first_steps(episodes: Sequence[Episode], reality: Reality) -> Traces:
    return real_traces(episodes, [Window(number, 0) for number in range(len(episodes))], STEPS, reality.action_space)
