"""A small proof from beginning to end: what is sealed, counted, compared, and left to read. Returns are not judged."""

import json
from dataclasses import replace

import pytest

from simservice.data.collect import RealStepCounter
from simservice.errors import ConfigError, RealStepBudgetExceeded
from simservice.proving.agent import AgentConfig
from simservice.proving.finish import finish
from simservice.proving.proof import ProofConfig
from simservice.proving.recipe import Bar
from simservice.proving.recipes import all_recipes, find
from simservice.proving.record import record
from simservice.proving.run import prove

SMALL = replace(
    find("ensemble-cartpole"),
    real_steps=600,
    overrides={"updates": 200, "evaluate_every": 100},
    agent=AgentConfig(lanes=16, horizon=64, steps=4096, minibatch=256, reward_scale=0.1),
    measure=lambda trial: {"fresh_steps": float(sum(map(len, trial.fresh(100))))},
    bars=(Bar(figure="real_return", least=1), Bar(figure="real_return", most=0), Bar(figure="no_such_figure", least=0)),
)


def config(out, **changed):
    return ProofConfig(
        **{"seeds": (0,), "out": out, "score_episodes": 20, "control_agents": 1, "with_rows": False, "processes": 1}
        | changed
    )


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    out = tmp_path_factory.mktemp("prove")
    found = prove(SMALL, config(out))
    return found, out


def test_a_proof_counts_every_real_step_apart_from_those_that_only_judge(proof):
    found, out = proof
    (result,) = found.seeds
    assert result.real_steps == 600
    data = json.loads(next((out / SMALL.name / "seed0").rglob("metadata.json")).read_text())
    assert data["total_steps"] == 600 and data["total_episodes"] == result.real_resets
    assert found.judging_steps > 2000  # random play, the agent and five controls
    assert result.through_client


def test_controls_that_know_nothing_stay_near_random_play(proof):
    found, _ = proof
    real = {control.name: control for control in found.controls}
    assert list(real) == ["C1", "C2", "C3", "C4", "C5"]
    assert all(real[name].check(SMALL).met and real[name].real_return < 95 for name in ("C2", "C3"))
    bars = {check.row: check.bar for check in found.checks}
    assert bars["C4"] == "reported"
    assert bars["C5"] == ">= 475"  # which so short a training need not reach
    assert 15 < found.chance < 30


def test_a_proof_holds_only_if_every_bar_and_control_does(proof):
    found, _ = proof
    met = {(check.row, check.bar): check.met for check in found.checks}
    assert met["A1", ">= 1"] and not met["A1", "<= 0"] and not met["A1", ">= 0"]
    assert not found.met


def test_a_card_tells_data_steps_controls_and_licence(proof):
    found, out = proof
    card = finish(found, out)
    text = card.read_text()
    for words in (
        found.seeds[0].dataset_hash[:16],
        "Licence of the world: Apache-2.0",
        "Licence of the data: Apache-2.0",
        "shuffled actions",
        "FALLS SHORT",
        "through the client",
    ):
        assert words in text
    assert (card.parent / "dream.png").stat().st_size > 500
    stored = json.loads((card.parent / "card.json").read_text())
    assert stored["seeds"][0]["real_steps"] == 600 and stored["met"] is False


def test_a_step_beyond_the_budget_is_refused_before_any_is_taken():
    counter = RealStepCounter(budget=100)
    with pytest.raises(RealStepBudgetExceeded):
        record("CartPole-v1", 101, 0, "mixed", counter)
    assert counter.steps == 0
    assert sum(map(len, record("CartPole-v1", 100, 0, "mixed", counter))) == 100
    with pytest.raises(RealStepBudgetExceeded):
        record("CartPole-v1", 1, 1, "random", counter)


def test_recipes_are_known_by_name_and_name_what_they_prove():
    recipes = all_recipes()
    assert {"ensemble-cartpole", "ensemble-pendulum"} <= recipes.keys()
    assert all(recipe.row and recipe.title and recipe.name == name for name, recipe in recipes.items())
    with pytest.raises(ConfigError, match="did you mean 'ensemble-cartpole'"):
        find("ensemble-cartpol")


def test_a_bar_is_held_to_median_or_worst_and_asks_for_one_side():
    figures = [{"x": 1.0}, {"x": 2.0}, {"x": 9.0}]
    assert Bar(figure="x", least=2).met(figures) and not Bar(figure="x", least=2, across="min").met(figures)
    assert Bar(figure="x", most=9, across="max").met(figures)
    missing = Bar(figure="x", most=9)
    assert missing.seen([*figures, {}]) is None and not missing.met([*figures, {}])
    with pytest.raises(ConfigError, match="one of least and most"):
        Bar(figure="x")
