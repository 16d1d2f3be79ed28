"""What the eight numbers say of a world, and which verdict follows; nothing unknown ever counts as good."""

from dataclasses import replace

import numpy as np
import pytest

from simservice.fidelity.front_page import MOST_CARE, Findings, front_page
from simservice.fidelity.metric import UNKNOWN, Score
from simservice.fidelity.outcomes import return_gap
from simservice.fidelity.ranking import policy_ranking
from simservice.fidelity.reading import Reading, interval_shown, shown
from simservice.fidelity.states import HorizonCurve

GOOD = {
    "trust_horizon_steps": 40.0,
    "return_gap_max_abs": 0.02,
    "return_gap_mean": 0.01,
    "policy_rank_spearman": 0.98,
    "false_success_ratio": 0.01,
    "reward_error_ratio": 0.01,
    "termination_f1_ratio": 0.97,
    "termination_ece_ratio": 0.01,
    "missed_terminations_per_1000_steps": 1.0,
    "out_of_support_ratio": 0.02,
    "exploitation_gap_ratio": 0.03,
}


def curve(known: int = 100, alive: float = 1.0) -> HorizonCurve:
    lead = np.arange(1, 101)
    error = np.where(lead <= known, 0.01 * lead**0.7, np.nan)
    share = np.where(lead <= known, 1.0, alive)
    return HorizonCurve(error=error, lower=0.9 * error, upper=1.1 * error, alive=share, windows=200, episodes=50)


def findings(curve_: HorizonCurve | None = None, scores: dict | None = None, policies: int = 10, **more) -> Findings:
    generator = np.random.default_rng(0)
    real = {f"p{i}": generator.normal(10 * i, 1, 20) for i in range(policies)}
    imagined = {name: returns + generator.normal(0, 1, 20) for name, returns in real.items()}
    values = {**GOOD, **(scores or {})}
    return Findings(
        scores={
            name: value if isinstance(value, Score) else Score(value, 0.95 * value, 1.05 * value, 50)
            for name, value in values.items()
        },
        floors={},
        curve=curve_ or curve(),
        returns=return_gap(real, imagined),
        ranking=policy_ranking(real, imagined),
        exploited=(100.0, 97.0),
        drift=None,
        missing={"drift_log10_evalue": "the data is not at hand"},
        **more,
    )


def marks(found: Findings) -> dict[str, str]:
    return {line.key: line.mark for line in front_page(found).lines}


def test_a_good_world_is_trustworthy_for_as_many_steps_as_it_is():
    page = front_page(findings())
    assert page.verdict.grade == "trustworthy"
    assert page.verdict.headline == "Trustworthy for branches of up to 40 steps"
    assert len(page.lines) == 8


def test_what_was_not_measured_is_told_and_not_good():
    page = front_page(findings())
    assert {line.key: line.mark for line in page.lines}["drift"] == "unknown"
    assert page.verdict.reasons == ("Is reality still the same is not known: the data is not at hand",)


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({"trust_horizon_steps": 6.0}, "trusted for 6 steps, fewer than the 15 asked for"),
        ({"policy_rank_spearman": 0.1}, None),
        ({"false_success_ratio": 0.3}, "calls 30 % of real failures a success"),
        ({"reward_error_ratio": 0.7}, "rewards are wrong"),
        ({"exploitation_gap_ratio": 0.6}, "optimised inside it earns 100 imagined, 97 real"),
        ({"exploitation_gap_ratio": Score(-0.6, -0.7, -0.5, 20)}, "optimised inside it earns"),
    ],
)
def test_what_fools_an_agent_makes_a_world_untrustworthy_by_itself(scores, told):
    verdict = front_page(findings(scores=scores)).verdict
    assert verdict.grade == "untrustworthy"
    assert told is None or told in " ".join(verdict.reasons)


def test_few_faults_ask_for_care_and_many_are_too_many():
    faults = {"termination_f1_ratio": 0.3, "termination_ece_ratio": 0.2, "out_of_support_ratio": 0.4}
    grades = []
    for count in range(MOST_CARE + 1):
        some = dict(list(faults.items())[:count])
        grades.append(front_page(findings(scores=some)).verdict.grade)
    assert grades == ["trustworthy", "with care", "with care", "untrustworthy"]


def test_returns_promised_and_not_kept_are_worse_than_returns_kept_and_not_promised():
    real = {f"p{i}": np.full(20, 10.0 * i) for i in range(10)}
    kind, strict = ({**real, "p3": real["p3"] + change} for change in (60.0, -29.0))
    floor = Score(0.6, 0.55, 0.65, 20)
    for imagined, grade in ((kind, "untrustworthy"), (strict, "with care")):
        found = replace(findings(scores={"return_gap_max_abs": floor}), returns=return_gap(real, imagined))
        verdict = front_page(found).verdict
        assert verdict.grade == grade
        assert "policy p3 earns" in verdict.reasons[0]
        assert sum("p3" in reason for reason in verdict.reasons) == 1


def test_too_little_evidence_is_unknown_and_neither_good_nor_bad():
    found = findings(curve(known=8, alive=0.0), scores={"trust_horizon_steps": 8.0})
    assert marks(found)["trust_horizon"] == "unknown"
    assert front_page(found).verdict.grade == "unknown"


def test_a_world_that_ends_what_lives_is_not_excused_by_that():
    found = findings(curve(known=8, alive=0.9), scores={"trust_horizon_steps": 8.0})
    assert marks(found)["trust_horizon"] == "bad"
    assert "ends more than a quarter of what still lives" in front_page(found).verdict.reasons[0]


def test_a_ranking_of_few_policies_is_hidden():
    found = findings(policies=5, scores={"policy_rank_spearman": UNKNOWN})
    [line] = [line for line in front_page(found).lines if line.key == "ranking"]
    assert line.mark == "unknown"
    assert line.note == "only 5 independent policies, 8 are needed"


def test_a_number_fails_only_with_all_of_its_interval():
    reading = Reading(name="x", metric="x", score=Score(0.3, 0.1, 0.5, 9), bar=0.2)
    assert reading.mark == "close"
    assert replace(reading, score=Score(0.3, 0.25, 0.5, 9)).mark == "bad"
    assert replace(reading, bound=True).mark == "bad"
    assert replace(reading, score=Score(0.1, 0.0, 0.5, 9)).mark == "good"
    assert replace(reading, at_most=False).mark == "good"
    assert replace(reading, score=UNKNOWN).mark == "unknown"


def test_numbers_are_shown_as_people_read_them():
    assert [shown(0.1234), shown(float("nan")), shown(3.2e9), shown(40.0, "steps"), shown(0.051, "share")] == [
        "0.123", "unknown", "3.2e+09", "40", "5.1 %",
    ]  # fmt: skip
    assert interval_shown(Score(0.5, 0.25, 0.75, 3)) == "0.250 to 0.750"
    assert interval_shown(UNKNOWN) == ""
