"""One measurement of a served world against the real environment. Knows neither schedule nor exporter.

Real episodes of a fixed mixture of policies are recorded; the world is grounded in real states of theirs and given the
same actions (how far can its states be trusted?), and the policies are let loose in it (is its return honest?).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from simservice.client.worlds import get_world
from simservice.data.collect import RealStepCounter
from simservice.data.episodes import fingerprint
from simservice.data.policies import Policy
from simservice.errors import InvalidInput
from simservice.fidelity.metric import Score, metrics
from simservice.fidelity.outcomes import return_gap
from simservice.fidelity.states import horizon_error_curve, trust_horizon
from simservice.fidelity.traces import Traces
from simservice.monitor.evaluation.pairing import average, with_ends
from simservice.monitor.imagine import DreamPlayer
from simservice.monitor.reality import (
    ProbeConfig,
    Reality,
    cut_windows,
    play,
    real_traces,
    single_steps,
    suite,
)
from simservice.monitor.report import ProbeReport
from simservice.types import Array, Episode

TAUS = (0.1, 0.3, 0.5)

Tell = Callable[[str], None]


Pair = tuple[Traces, Traces]
"""Real and imagined."""


@dataclass(frozen=True)
class _Evidence:
    """What metrics look at."""

    windows: Pair
    steps: Pair
    returns: tuple[Mapping[str, Array], Mapping[str, Array]]
    return_range: tuple[float, float] | None


def probe(
    address: str,
    world: str,
    config: ProbeConfig,
    *,
    policy: Policy | None = None,
    counter: RealStepCounter | None = None,
    tell: Tell | None = None,
) -> ProbeReport:
    """Measures the world `name` or `name@version` served at `address`.

    The mixture is random play, random play with held actions and, if a policy is given, that policy pure and with
    30 % random actions. Real steps are counted in `counter`, and kept within its budget. Raises InvalidInput when the
    environment's spaces are not the world's, and whatever the client raises.
    """
    began = time.monotonic()
    counter = counter if counter is not None else RealStepCounter()
    steps_before = counter.steps
    reality = Reality.of(config)
    tell = tell or (lambda _: None)
    spec = get_world(address, world).spec
    check_spaces(reality, spec.observation_space, spec.action_space, config.env_id)
    recorded = _play_reality(reality, config, policy, counter, tell)
    episodes = [episode for played in recorded.values() for episode in played]
    # Sessions begin after slow reality has been played, and stay with one version should a newer one come meanwhile.
    with DreamPlayer(address, spec.full_name, config.lanes) as player:
        tell("the same actions in the world")
        windows, steps = _replay(player, episodes, config)
    truths = {name: np.array([one.undiscounted_return for one in played]) for name, played in recorded.items()}
    with DreamPlayer(address, spec.full_name, config.episodes) as soloist:
        imagined = _play_world(soloist, reality, config, policy, tell)
    scale = range_of_returns(truths, reality.reward_threshold)
    evidence = _Evidence(windows, steps, (truths, imagined), scale)
    curve = horizon_error_curve(*windows)
    return ProbeReport(
        world=spec.name,
        model_version=spec.version,
        env_id=config.env_id,
        attributes=dict(config.attributes),
        curve=curve,
        trust_horizon_steps={tau: trust_horizon(curve, tau) for tau in TAUS},
        returns=return_gap(truths, imagined, return_range=scale),
        scores=_scores(evidence),
        served_horizon_steps=spec.max_episode_steps,
        real_episodes=len(episodes),
        real_steps=counter.steps - steps_before,
        imagined_steps=player.steps + soloist.steps,
        data_hash=fingerprint(episodes),
        finished_at=time.time(),
        seconds=time.monotonic() - began,
        real=windows[0],
        imagined=windows[1],
    )


def _play_reality(
    reality: Reality, config: ProbeConfig, policy: Policy | None, counter: RealStepCounter, tell: Tell
) -> dict[str, list[Episode]]:
    recorded: dict[str, list[Episode]] = {}
    for name, make in suite(reality, policy).items():
        tell(f"{config.episodes} real episodes of {name}")
        recorded[name] = play(config, reality, name, make(config.seed), counter)
    return recorded


def _replay(player: DreamPlayer, episodes: list[Episode], config: ProbeConfig) -> tuple[Pair, Pair]:
    """Windows of many steps, and single steps."""
    windows = cut_windows(episodes, config.windows, config.horizon, config.seed)
    real = real_traces(episodes, windows, config.horizon)
    dreamt = player.replay(episodes, windows, config.horizon, config.copies, config.seed)
    steps = single_steps(episodes, config.seed)
    real_steps = real_traces(episodes, steps, 1)
    dreamt_steps = player.replay(episodes, steps, 1, config.copies, config.seed + 1)
    return (real, average(real, dreamt)), (real_steps, with_ends(average(real_steps, dreamt_steps), dreamt_steps))


def _play_world(
    player: DreamPlayer, reality: Reality, config: ProbeConfig, policy: Policy | None, tell: Tell
) -> dict[str, Array]:
    imagined: dict[str, Array] = {}
    for name, make in suite(reality, policy).items():
        tell(f"{config.episodes} episodes of {name} in the world")
        imagined[name] = player.returns(make(config.seed + 1), config.episodes, reality.limit, config.seed)
    return imagined


def _scores(evidence: _Evidence) -> dict[str, Score]:
    whole = tuple(
        replace(traces, returns=returns, return_range=evidence.return_range)
        for traces, returns in zip(evidence.windows, evidence.returns, strict=True)
    )
    pairs = {"windows": evidence.windows, "steps": evidence.steps, "returns": whole}
    return {name: metric.measure(*pairs[metric.evidence]) for name, metric in metrics().items()}


def range_of_returns(truths: Mapping[str, Array], threshold: float | None) -> tuple[float, float] | None:
    """From the worst policy to the better of the best one and what counts as solved.

    At least as wide as real returns scatter, so that a suite of equally bad policies does not blow every gap up; None
    where all returns are equal.
    """
    means = [float(returns.mean()) for returns in truths.values()]
    low, high = min(means), max(means)
    high = max(high, threshold) if threshold is not None else high
    high = max(high, low + float(np.concatenate(list(truths.values())).std()))
    return (low, high) if high > low else None


def check_spaces(reality: Reality, observation_space: object, action_space: object, env_id: str) -> None:
    for name, real, served in (
        ("observation", reality.observation_space, observation_space),
        ("action", reality.action_space, action_space),
    ):
        if real != served:
            raise InvalidInput("env", f"{env_id} has the {name} space {real}, the served world has {served}")
