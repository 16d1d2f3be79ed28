"""`simservice prove`: one table, a summary, and a status that says whether every bar was reached."""

import json
import re
from dataclasses import replace

import pytest

from simservice.cli import run
from simservice.proving import recipes
from simservice.proving.recipe import Bar, Recipe

GOOD = Recipe(
    name="good",
    row="A1",
    title="What reaches its bar",
    env_id="CartPole-v1",
    real_steps=300,
    family="ensemble",
    overrides={"updates": 40, "evaluate_every": 20},
    bars=(Bar(figure="train_s", most=1_000),),
)
SHORT = replace(GOOD, name="short", row="A2", title="What does not", bars=(Bar(figure="train_s", most=0),))


@pytest.fixture
def prove(tmp_path, capsys, monkeypatch):
    """Runs the verb on these recipes; gives status, summary and what was printed."""
    monkeypatch.setenv("COLUMNS", "160")

    def call(name, *known, words=()):
        monkeypatch.setattr(recipes, "all_recipes", lambda: {recipe.name: recipe for recipe in known})
        line = ["prove", name, "--seeds", "0", "--no-rows", "--processes", "1", "--out", str(tmp_path), *words]
        status = run(line)
        captured = capsys.readouterr()
        summary = tmp_path / ("summary.json" if name == "all" else f"{name}.json")
        return status, json.loads(summary.read_text()), captured

    return call


def test_all_recipes_end_in_one_table_and_a_status_of_one_if_a_row_falls_short(prove):
    status, summary, told = prove("all", GOOD, SHORT)
    assert status == 1 and summary["met"] is False
    assert [(proof["name"], proof["met"]) for proof in summary["proofs"]] == [("good", True), ("short", False)]
    table = told.out[told.out.index("all recipes") :]
    rows = [re.sub(r"[^\w<=. ]+", " ", line).split() for line in table.splitlines()]
    (good,) = [row for row in rows if "good" in row and "A1" in row]
    (short,) = [row for row in rows if "short" in row and "A2" in row]
    assert good[-1] == "ok" and short[-2:] == ["FALLS", "SHORT"] and "0" in short
    assert "fell short: short" in told.out
    assert "of 4 parts done" in told.err and "left]" in told.err


def test_a_recipe_that_reaches_its_bars_ends_with_zero_and_its_card(prove, tmp_path):
    status, summary, told = prove("good", GOOD, SHORT)
    assert status == 0 and summary["met"] is True
    assert "open " in told.out and (tmp_path / "good" / "card.md").is_file()
    before = json.loads((tmp_path / "good" / "seed0.json").read_text())
    prove("good", GOOD)
    assert json.loads((tmp_path / "good" / "seed0.json").read_text()) == before
    prove("good", GOOD, words=["--again"])
    assert json.loads((tmp_path / "good" / "seed0.json").read_text())["figures"] != before["figures"]


def test_seeds_that_are_no_numbers_are_refused(capsys):
    assert run(["prove", "rssm-cartpole", "--seeds", "one"]) == 2
    assert "name them like 0,1,2" in capsys.readouterr().err
