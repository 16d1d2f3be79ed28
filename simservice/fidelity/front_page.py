"""The eight numbers that decide whether a world can be trusted, each with its bar, and the verdict that follows.

A number fails its bar only when all of its interval does; between, it is close. What was not measured is unknown, and
never counts as good. What fools an agent (a short trust horizon, returns or successes that are promised and not kept, a
wrong order of policies, wrong rewards, a win in the dream only, a changed reality) makes a world untrustworthy by
itself; the rest (returns that are promised too low, ends, support) asks for care, and three of those are too many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from simservice.fidelity import thresholds
from simservice.fidelity.drift import DriftReading
from simservice.fidelity.metric import UNKNOWN, Score, metrics
from simservice.fidelity.noise import NoiseFloor
from simservice.fidelity.outcomes import PolicyGap, ReturnGap
from simservice.fidelity.ranking import LEAST_UNITS, PolicyRanking
from simservice.fidelity.reading import NO_FLOOR, Mark, Reading, shown
from simservice.fidelity.states import MIN_WINDOWS, HorizonCurve

Grade = Literal["trustworthy", "with care", "untrustworthy", "unknown"]

MOST_CARE = 3
"""So many numbers that each ask for care are together a reason not to trust."""

WORST_FIRST: tuple[Mark, ...] = ("bad", "unknown", "close", "good")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One of the eight: the number that stands for it, and those beside it."""

    key: str
    question: str
    readings: tuple[Reading, ...]
    note: str = ""

    @property
    def mark(self) -> Mark:
        """The worst of its numbers; unknown only if the first one is."""
        known = [reading.mark for reading in self.readings if reading.mark != "unknown"]
        if self.readings[0].mark == "unknown" and "bad" not in known:
            return "unknown"
        return next(mark for mark in WORST_FIRST if mark in known)


@dataclass(frozen=True)
class Verdict:
    """In one line, and why."""

    grade: Grade
    headline: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FrontPage:
    """The eight lines in their order, and the verdict."""

    lines: tuple[Line, ...]
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the front page is made from."""

    scores: Mapping[str, Score]  # every metric by name
    floors: Mapping[str, NoiseFloor]
    curve: HorizonCurve
    returns: ReturnGap
    ranking: PolicyRanking
    exploited: tuple[float, float] | None  # mean imagined and real return of the policy optimised inside
    drift: DriftReading | None
    missing: Mapping[str, str]  # by metric: why it was not measured
    steps: int = thresholds.LEAST_STEPS  # that agents will imagine


def front_page(found: Findings) -> FrontPage:
    """The eight lines and the verdict."""
    lines = tuple(make(found) for make in (_error, _trust, _gap, _ranking, _signals, _support, _drift, _exploitation))
    return FrontPage(lines=lines, verdict=_verdict(lines))


def _verdict(lines: tuple[Line, ...]) -> Verdict:
    readings = [reading for line in lines for reading in line.readings]
    bad = [reading for reading in readings if reading.mark == "bad"]
    fatal = [reading.sentence for reading in bad if reading.decides]
    care = [reading.sentence for reading in bad if not reading.decides and not reading.silent]
    close = [f"{reading.name} is beyond its bar, but not clearly" for reading in readings if reading.mark == "close"]
    essential = [line for line in lines[:3] if line.mark == "unknown"]
    unknown = [
        f"{line.question.rstrip('?')} is not known: {line.readings[0].why_unknown or 'too little evidence'}"
        for line in lines
        if line.mark == "unknown"
    ]
    trusted = next(line for line in lines if line.key == "trust_horizon").readings[0].score.value
    if fatal or len(care) >= MOST_CARE:
        return Verdict("untrustworthy", "Not trustworthy", tuple(fatal + care))
    if essential:
        return Verdict("unknown", "Not known: too little evidence", tuple(unknown + care))
    headline = f"for branches of up to {trusted:.0f} steps"
    if care or close:
        return Verdict("with care", f"Trustworthy with care, {headline}", tuple(care + close + unknown))
    return Verdict("trustworthy", f"Trustworthy {headline}", tuple(unknown))


def _reading(found: Findings, metric: str, name: str, bar: float, sentence: str) -> Reading:
    """Of a registered metric."""
    registered = metrics()[metric]
    return Reading(
        name=name,
        metric=metric,
        score=found.scores.get(metric, UNKNOWN),
        bar=bar,
        sentence=sentence,
        floor=found.floors.get(metric, NO_FLOOR),
        level=registered.level,
        unit=registered.unit,
        convention=registered.convention,
        why_unknown=found.missing.get(metric, ""),
    )


def _error(found: Findings) -> Line:
    curve, steps = found.curve, found.steps
    place = steps - 1
    known = place < len(curve.error)
    score = (
        Score(float(curve.error[place]), float(curve.lower[place]), float(curve.upper[place]), curve.episodes)
        if known
        else UNKNOWN
    )
    template = _reading(found, "error_ratio_10", f"error {steps} steps ahead", thresholds.ERROR, "")
    reading = replace(
        template,
        metric=f"error_ratio_{steps}",
        score=score,
        sentence=f"{steps} steps ahead its error is {score.value:.2f} of reality's spread (bar {thresholds.ERROR:g})",
        why_unknown=f"too few real episodes were alive {steps} steps ahead",
        decides=False,  # the trust horizon says it with its bound
    )
    leads = [lead for lead in (1, 10, 50) if lead <= len(curve.error) and not math.isnan(curve.at(lead))]
    return Line(
        key="error",
        question="How wrong is it, steps ahead?",
        readings=(reading,),
        note="of reality's spread; " + ", ".join(f"{curve.at(lead):.3g} at {lead}" for lead in leads),
    )


def _trust(found: Findings) -> Line:
    curve, value = found.curve, found.scores["trust_horizon_steps"].value
    looked = len(curve.error)
    ends = value < looked and math.isnan(curve.upper[int(value)]) if value == value else False
    # Where starts are alive in reality but not in the world, it is the world that ends them.
    short = ends and curve.alive[int(value)] * curve.windows < MIN_WINDOWS
    reading = replace(
        _reading(
            found,
            "trust_horizon_steps",
            "trust horizon",
            float(found.steps),
            f"its states can be trusted for {value:.0f} steps, fewer than the {found.steps} asked for"
            + ("; then it ends more than a quarter of what still lives in reality" if ends and not short else ""),
        ),
        at_most=False,
        bound=True,
        kind="steps",
    )
    if short and value < found.steps:  # it is the evidence that ends there, not the world
        why = f"too few real episodes lived longer than {value:.0f} steps"
        reading = replace(reading, score=UNKNOWN, why_unknown=why)
    note = f"error at most {thresholds.ERROR:g} up to there, with 95 % confidence"
    if value == looked:
        note += "; as far as was looked"
    elif ends:
        note += "; beyond, too few real episodes were alive" if short else "; then it ends what still lives in reality"
    return Line(key="trust_horizon", question="For how many steps?", readings=(reading,), note=note)


def _gap(found: Findings) -> Line:
    worst = max(found.returns.policies, key=lambda gap: abs(gap.gap.value))
    kindest = max(found.returns.policies, key=lambda gap: gap.gap.value)
    bar = thresholds.return_gap_bar(found.returns.floor)

    def sentence(gap: PolicyGap) -> str:
        return (
            f"policy {gap.policy} earns {gap.imagined_mean:.4g} in it and {gap.real_mean:.4g} in reality, "
            f"a gap of {gap.gap.value:+.2f} of the return range (bar {bar:.2f})"
        )

    largest = _reading(found, "return_gap_max_abs", "largest return gap", bar, sentence(worst))
    # What a world promises too much, agents look for; what it promises too little, they only miss.
    promised = replace(largest, name="most promised too much", score=kindest.gap, sentence=sentence(kindest))
    told = promised.mark == "bad" and kindest is worst
    readings = (replace(largest, decides=False, silent=told), replace(promised, floor=NO_FLOOR))
    mean = found.scores.get("return_gap_mean", UNKNOWN).value
    return Line(
        key="return_gap",
        question="Are its returns honest?",
        readings=readings,
        note=f"{len(found.returns.policies)} policies; worst {_told(worst)}; mean gap {mean:+.3f}",
    )


def _told(gap: PolicyGap) -> str:
    return f"{gap.policy}: {gap.imagined_mean:.4g} imagined, {gap.real_mean:.4g} real"


def _ranking(found: Findings) -> Line:
    ranking = found.ranking
    value = ranking.spearman.value
    sentence = (
        f"it ranks {ranking.units} policies wrongly: Spearman {value:.2f} (bar {thresholds.RANK_CORRELATION:g}), so "
        "it would not choose the right one"
    )
    hidden = (
        f"only {ranking.units} independent policies, {LEAST_UNITS} are needed"
        if ranking.units < LEAST_UNITS
        else "all returns of a side are equal"
    )
    reading = replace(
        _reading(found, "policy_rank_spearman", "rank correlation", thresholds.RANK_CORRELATION, sentence),
        at_most=False,
        why_unknown=hidden,
    )
    note = hidden
    if value == value:
        low, high = ranking.spearman_drop_one
        note = (
            f"Spearman of {ranking.units} independent policies (any one left out: {low:.2f} to {high:.2f}); "
            f"Pearson {ranking.pearson.value:.2f}, MMRV {ranking.mmrv.value:.3f}"
        )
    return Line(key="ranking", question="Does it choose the right policy?", readings=(reading,), note=note)


def _signals(found: Findings) -> Line:
    scores = found.scores

    def value(metric: str) -> float:
        return scores.get(metric, UNKNOWN).value

    readings = (
        replace(
            _reading(
                found,
                "false_success_ratio",
                "false successes",
                thresholds.FALSE_SUCCESS,
                f"it calls {100 * value('false_success_ratio'):.0f} % of real failures a success "
                f"(bar {100 * thresholds.FALSE_SUCCESS:g} %)",
            ),
            kind="share",
        ),
        _reading(
            found,
            "reward_error_ratio",
            "reward error",
            thresholds.REWARD_ERROR,
            f"its rewards are wrong by {value('reward_error_ratio'):.2f} of their spread",
        ),
        replace(
            _reading(
                found,
                "termination_f1_ratio",
                "ends, F1",
                thresholds.TERMINATION_F1,
                "it sees ends of episodes too late, too early or not at all (F1 "
                f"{value('termination_f1_ratio'):.2f} one step ahead, bar {thresholds.TERMINATION_F1:g}; "
                f"{value('missed_terminations_per_1000_steps'):.0f} missed in 1000 steps)",
            ),
            at_most=False,
            decides=False,
        ),
        replace(
            _reading(
                found,
                "termination_ece_ratio",
                "ends, calibration",
                thresholds.TERMINATION_ECE,
                f"its probabilities of an end are off by {value('termination_ece_ratio'):.3f} on average "
                f"(bar {thresholds.TERMINATION_ECE:g})",
            ),
            decides=False,
        ),
    )
    note = (
        f"reward error {shown(value('reward_error_ratio'))}, ends F1 {shown(value('termination_f1_ratio'))}, "
        f"their calibration error {shown(value('termination_ece_ratio'))}"
    )
    return Line(key="signals", question="Are rewards and ends right?", readings=readings, note=note)


def _support(found: Findings) -> Line:
    value = found.scores.get("out_of_support_ratio", UNKNOWN).value
    sentence = f"agents spend {100 * value:.0f} % of their imagined steps where it knows nothing "
    sentence += f"(bar {100 * thresholds.OUT_OF_SUPPORT_WARN:g} %)"
    reading = replace(
        _reading(found, "out_of_support_ratio", "out of support", thresholds.OUT_OF_SUPPORT_WARN, sentence),
        kind="share",
        decides=False,
    )
    note = found.missing.get("support_reference", "")
    return Line(
        key="support",
        question="Do agents stay where it knows?",
        readings=(reading,),
        note=f"imagined steps less sure than 99 % of {note}" if note else "",
    )


def _drift(found: Findings) -> Line:
    drift = found.drift
    log10 = max(drift.log10_evidence.values()) if drift is not None else math.nan
    alarmed = ", ".join(drift.alarmed) if drift is not None else ""
    reading = Reading(
        name="change, log10 evidence",
        metric="drift_log10_evalue",
        score=Score(log10, log10, log10, drift.probes if drift is not None else 0),
        bar=drift.log10_threshold if drift is not None else thresholds.DRIFT_LOG10,
        kind="log10",
        bound=True,
        level="L4",
        unit="episode",
        convention="Shiryaev-Roberts e-process; at most probes / c of unchanged worlds alarm",
        sentence=f"reality has changed since its data was recorded ({alarmed}; evidence 10^{log10:.1f})",
        why_unknown=found.missing.get("drift_log10_evalue", ""),
    )
    note = reading.why_unknown
    if drift is not None:
        note = f"{drift.probes} recorded episodes against reality now; alarms at {drift.log10_threshold:.1f}"
    return Line(key="drift", question="Is reality still the same?", readings=(reading,), note=note)


def _exploitation(found: Findings) -> Line:
    sides = found.exploited
    told = f"{sides[0]:.4g} imagined, {sides[1]:.4g} real" if sides is not None else ""
    sentence = f"a policy optimised inside it earns {told}"
    reading = replace(
        _reading(found, "exploitation_gap_ratio", "exploitation gap", thresholds.EXPLOITATION, sentence), size=True
    )
    return Line(
        key="exploitation",
        question="Can it be won in the dream only?",
        readings=(reading,),
        note=f"policy optimised inside: {told}" if told else reading.why_unknown,
    )
