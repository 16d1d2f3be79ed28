"""The whole truth about one served world: plays reality and dream, measures everything, and gives a verdict.

Talks to the service as any client does. Starts nothing and publishes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from simservice.client.worlds import get_world
from simservice.data.collect import RealStepCounter
from simservice.data.episodes import fingerprint
from simservice.data.policies import Policy
from simservice.errors import RealStepBudgetExceeded
from simservice.fidelity.front_page import Findings, FrontPage, front_page
from simservice.fidelity.metric import UNKNOWN, Score, metrics
from simservice.fidelity.noise import SPLITS, NoiseFloor, noise_floor
from simservice.fidelity.outcomes import ReturnGap, return_gap
from simservice.fidelity.ranking import PolicyRanking, policy_ranking
from simservice.fidelity.reading import NO_FLOOR
from simservice.fidelity.states import HorizonCurve, horizon_error_curve
from simservice.fidelity.thresholds import LEAST_STEPS
from simservice.monitor.evaluation.exploit import Exploited, exploit
from simservice.monitor.evaluation.gather import Evidence, Pair, Tell, gather, make_suite
from simservice.monitor.evaluation.linear_policies import LinearPolicies
from simservice.monitor.evaluation.since_recorded import SinceRecorded, drift_since
from simservice.monitor.imagine import DreamPlayer
from simservice.monitor.probe import check_spaces, range_of_returns
from simservice.monitor.reality import ProbeConfig, Reality
from simservice.types import Episode

DISTRIBUTIONS = ("energy_distance_ratio", "c2st_accuracy_ratio")
"""Compared by single copies: a mean of copies is narrower than any of them."""

ON_THE_FRONT = ("return_gap_max_abs", "policy_rank_spearman", "out_of_support_ratio", "exploitation_gap_ratio")
"""Whose noise floor is worth all splits; that of the others, from a tenth of them, is there to be read only."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that was found of one world."""

    world: str  # name@version
    family: str
    env_id: str
    attributes: Mapping[str, object]
    page: FrontPage
    scores: Mapping[str, Score]  # every registered metric
    floors: Mapping[str, NoiseFloor]
    missing: Mapping[str, str]
    curve: HorizonCurve
    returns: ReturnGap
    ranking: PolicyRanking
    evidence: Evidence
    exploited: Exploited | None
    drift: SinceRecorded
    steps: int  # ahead that were asked for
    served_horizon_steps: int | None
    real_episodes: int
    real_steps: int
    imagined_steps: int
    data_hash: str  # of the real episodes
    seed: int
    finished_at: float
    seconds: float


def evaluate(
    address: str,
    world: str,
    config: ProbeConfig,
    *,
    policies: Mapping[str, Policy] | None = None,
    training: Sequence[Episode] = (),
    steps: int = LEAST_STEPS,
    splits: int = SPLITS,
    counter: RealStepCounter | None = None,
    tell: Tell | None = None,
) -> Evaluation:
    """Evaluates the world `name` or `name@version` served at `address`.

    `training` are the episodes it was learned from, where they are at hand: for what counts as known, and for whether
    reality has moved since. `steps` is how far ahead agents will imagine. Real steps are counted in `counter`; what its
    budget does not hold after the suite was played is unknown. Raises InvalidInput when the environment's spaces are
    not the world's, and whatever the client raises.
    """
    began, tell = time.monotonic(), tell or (lambda _: None)
    counter = counter if counter is not None else RealStepCounter()
    before = counter.steps
    reality = Reality.of(config)
    spec = get_world(address, world).spec
    check_spaces(reality, spec.observation_space, spec.action_space, config.env_id)
    missing: dict[str, str] = {}
    with DreamPlayer(address, spec.full_name, config.lanes) as player:
        tell("small policies of all kinds")
        suite = make_suite(player, reality, config, policies or {}, counter)
        evidence = gather(player, reality, suite, config, training, counter, tell)
        tell("optimising a policy inside the world")
        exploited = _exploited(player, suite.small, reality, config, counter, missing)
        imagined_steps = player.steps
    tell("whether reality is as it was recorded")
    drift = drift_since(training, reality, config, counter)
    episodes = [episode for played in evidence.recorded.values() for episode in played]
    tell("measuring")
    found = _measure(evidence, exploited, drift, reality, missing, splits, steps)
    return Evaluation(
        world=spec.full_name,
        family=spec.family,
        env_id=config.env_id,
        attributes=dict(config.attributes),
        page=front_page(found),
        scores=found.scores,
        floors=found.floors,
        missing=found.missing,
        curve=found.curve,
        returns=found.returns,
        ranking=found.ranking,
        evidence=evidence,
        exploited=exploited,
        drift=drift,
        steps=steps,
        served_horizon_steps=spec.max_episode_steps,
        real_episodes=len(episodes),
        real_steps=counter.steps - before,
        imagined_steps=imagined_steps,
        data_hash=fingerprint(episodes),
        seed=config.seed,
        finished_at=time.time(),
        seconds=time.monotonic() - began,
    )


def _exploited(
    player: DreamPlayer,
    small: LinearPolicies,
    reality: Reality,
    config: ProbeConfig,
    counter: RealStepCounter,
    missing: dict[str, str],
) -> Exploited | None:
    try:
        return exploit(player, small, reality, config, counter)
    except RealStepBudgetExceeded as error:
        missing["exploitation_gap_ratio"] = str(error)
        return None


def _measure(
    evidence: Evidence,
    exploited: Exploited | None,
    drift: SinceRecorded,
    reality: Reality,
    missing: Mapping[str, str],
    splits: int,
    steps: int,
) -> Findings:
    truths, imagined = evidence.returns
    scale = range_of_returns(truths, reality.reward_threshold)
    pairs = _pairs(evidence, exploited, scale)
    scores, floors = {}, {}
    for name, metric in metrics().items():
        pair = pairs.get(name, pairs[metric.evidence])
        scores[name] = metric.measure(*pair) if pair is not None else UNKNOWN
        fewer = splits if name in ON_THE_FRONT else max(2, splits // 10)
        floors[name] = noise_floor(metric, pair[0], splits=fewer) if pair is not None else NO_FLOOR
    why = {**missing, "support_reference": evidence.support_reference}
    if drift.reading is None:
        why["drift_log10_evalue"] = drift.why_unknown
    return Findings(
        scores=scores,
        floors=floors,
        curve=horizon_error_curve(*evidence.windows),
        returns=return_gap(truths, imagined, return_range=scale),
        ranking=policy_ranking(truths, imagined, runs=evidence.runs),
        exploited=(float(exploited.imagined.mean()), float(exploited.real.mean())) if exploited is not None else None,
        drift=drift.reading,
        missing=why,
        steps=steps,
    )


def _pairs(
    evidence: Evidence, exploited: Exploited | None, scale: tuple[float, float] | None
) -> dict[str, Pair | None]:
    """What each kind of evidence is, and what some metrics look at instead."""
    sides = []
    for number, windows in enumerate(evidence.windows):
        best = (exploited.real, exploited.imagined)[number] if exploited is not None else None
        sides.append(
            replace(windows, returns=evidence.returns[number], runs=evidence.runs, exploited=best, return_range=scale)
        )
    pairs: dict[str, Pair | None] = {
        "windows": evidence.windows,
        "steps": evidence.steps,
        "returns": (sides[0], sides[1]),
        "out_of_support_ratio": evidence.support,
        "action_effect_slope_ratio": evidence.effects,
        "action_effect_correlation": evidence.effects,
        "frame_psnr_decibels": evidence.frames,
        "frame_ssim_ratio": evidence.frames,
    }
    return pairs | {name: (evidence.windows[0], evidence.copies) for name in DISTRIBUTIONS}
