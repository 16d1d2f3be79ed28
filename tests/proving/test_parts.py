"""Parts of proofs: kept, made again when something has changed, made side by side, gone on with after an end."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from simservice.data.collect import RealStepCounter
from simservice.data.minari import save_dataset
from simservice.proving import kept, parts
from simservice.proving.pace import Pace
from simservice.proving.proof import ProofConfig
from simservice.proving.recipe import Bar, Check, Recipe
from simservice.proving.record import record
from simservice.proving.run import prove, prove_all
from simservice.worlds.checkpoint import load


def size(trial):
    """A figure that says of which seed it is."""
    return {"size": float(np.abs(next(iter(trial.world.weights().values())).numpy()).sum())}


SMALL = Recipe(
    name="small",
    row="A0",
    title="A small world without an agent",
    env_id="CartPole-v1",
    real_steps=300,
    family="ensemble",
    overrides={"updates": 60, "evaluate_every": 20},
    measure=size,
    bars=(Bar(figure="size", least=0),),
)


def config(out, **changed):
    return ProofConfig(**{"seeds": (0, 1), "out": out, "with_rows": False, "processes": 1} | changed)


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    out = tmp_path_factory.mktemp("prove")
    return prove(SMALL, config(out)), out


@pytest.fixture
def made(monkeypatch):
    """Words of all parts that are made from now on."""
    found, make = [], parts.make

    def watched(part, say):
        found.append(part.words)
        return make(part, say)

    monkeypatch.setattr("simservice.proving.run.make", watched)
    return found


def test_what_is_the_same_is_not_made_twice(proven, made):
    found, out = proven
    assert prove(SMALL, config(out)).seeds == found.seeds
    assert (
        prove(replace(SMALL, bars=(Bar(figure="size", least=9e9),), title="Asked otherwise"), config(out)).seeds
        == found.seeds
    )
    assert made == []


def test_another_seed_is_made_alone_and_again_makes_all(proven, made):
    found, out = proven
    more = prove(SMALL, config(out, seeds=(0, 1, 2)))
    assert made == ["small, data of seed 2", "small, seed 2"] and more.seeds[:2] == found.seeds
    made.clear()
    prove(SMALL, config(out, again=True))
    assert sorted(made) == ["small, data of seed 0", "small, data of seed 1", "small, seed 0", "small, seed 1"]


@pytest.mark.parametrize("changed", ["recipe", "code", "data", "world"])
def test_what_has_changed_is_made_again(proven, made, monkeypatch, tmp_path, changed):
    recipe, settings = SMALL, config(tmp_path, seeds=(0,))
    before = prove(recipe, settings)
    if changed == "recipe":
        recipe = replace(SMALL, overrides={"updates": 40, "evaluate_every": 20})
    elif changed == "code":
        monkeypatch.setattr(kept, "code_of", lambda family: "another")
    elif changed == "data":
        episodes = record("CartPole-v1", 300, 7, "random", RealStepCounter())
        place = tmp_path / "small/seed0/data"
        shutil.rmtree(place)
        save_dataset(episodes, "prove/small-v0", env_id="CartPole-v1", root=place, real_steps=300)
    else:
        (tmp_path / "small/seed0/small/world.json").unlink()
    after = prove(recipe, settings)
    once = ["small, data of seed 0", "small, seed 0"]
    assert made == once + (once[1:] if changed == "world" else once)
    same = [seed.version for seed in after.seeds] == [seed.version for seed in before.seeds]
    assert after.seeds and same == (changed != "recipe")
    assert prove(recipe, settings).seeds == after.seeds and made.count("small, seed 0") == 2


def test_other_families_code_changes_nothing_of_a_proof():
    assert kept.code_of("ensemble") != kept.code_of("rssm")


def test_parts_made_side_by_side_are_those_made_one_after_another(proven, tmp_path):
    found, said = proven[0], []
    proved = prove_all([BROKEN, SMALL], config(tmp_path, processes=2), said.append)
    proofs = {proof.recipe.name: proof for proof in proved}
    beside = proofs["small"]
    assert [seed.version for seed in beside.seeds] == [seed.version for seed in found.seeds]
    assert [seed.figures["size"] for seed in beside.seeds] == [seed.figures["size"] for seed in found.seeds]
    assert found.seeds[0].figures["size"] != found.seeds[1].figures["size"]
    assert len(proofs["broken"].failures) == 2
    assert any(words.startswith("small, seed 1: ") and "of 8 parts done" in words for words in said)


def test_an_ended_training_goes_on_to_the_same_world(proven, tmp_path):
    found, _ = proven
    said = []

    def stop(words):
        said.append(words)
        if "update 50" in words:
            raise OSError("the power went")

    recipe, settings = SMALL, config(tmp_path, seeds=(0,))
    part = parts.Part(recipe=recipe, kind="seed", seed=0, config=settings, through=True)
    parts.make(replace(part, kind="data"), said.append)
    with pytest.raises(OSError, match="the power went"):
        parts.make(part, stop)
    said.clear()
    went_on = parts.make(part, said.append)
    assert not any("update 10 " in words for words in said)  # nothing was learned anew
    assert went_on["version"] == found.seeds[0].version
    assert load(part.world).world.spec.version == found.seeds[0].version


BROKEN = replace(SMALL, name="broken", overrides={"no_such_setting": 1})


def test_a_part_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    rows = [Check(row="A7", what="asked of all", bar="reported", seen=1.0, met=True)]
    monkeypatch.setattr(parts, "examine", lambda *given, **named: rows)
    broken, small = prove_all([BROKEN, SMALL], config(tmp_path, with_rows=True), lambda words: None)
    assert small.met and small.rows == rows
    (first, second), bar = broken.failures, broken.checks[-1]
    assert first.startswith("broken, seed 0: ConfigError") and "no_such_setting" in first and "seed 1" in second
    assert not broken.met and not bar.met and bar.what == "size (median)"
    assert "no_such_setting" in (tmp_path / "broken" / "seed0.failed.txt").read_text()


def test_time_left_is_that_of_parts_not_made_and_learns_from_those_that_were(tmp_path):
    files = [tmp_path / name for name in "abc"]
    pace = Pace(dict.fromkeys(files, 600.0), 1, lambda words: None)
    assert pace.left_s() == 1800 and pace.words() == "about 30 min"
    pace.kept(files[0])
    assert pace.left_s() == 1200
    with pace.making(files[1]):
        assert pace.left_s() == pytest.approx(1200, abs=1)
    assert pace.left_s() < 1  # that one took no time at all
    assert Pace(dict.fromkeys(files, 6000.0), 2, lambda words: None).words() == "about 2 h 30 min"
