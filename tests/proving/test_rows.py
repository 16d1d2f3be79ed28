"""Rows of the acceptance table, on worlds that are known to pass and to fail them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from simservice.data.collect import RealStepCounter
from simservice.data.environments import make_environment
from simservice.data.episodes import Dataset, fingerprint
from simservice.errors import ConfigError, InvalidInput
from simservice.proving.card import number
from simservice.proving.record import record
from simservice.proving.rows import knowing, long_horizon
from simservice.proving.rows.examine import examine
from simservice.proving.rows.ground import Subject, auroc, check, told_apart
from simservice.proving.rows.heads import time_limits_leak
from simservice.proving.rows.long_horizon import stability
from simservice.proving.thresholded import Thresholded
from simservice.training.trainer import TrainConfig, train
from simservice.worlds.checkpoint import load
from simservice.worlds.noise import lane_draws


def dataset(env_id, steps, behaviour="random", **env_kwargs):
    env = make_environment(env_id, env_kwargs)
    episodes = tuple(record(env_id, steps, 0, behaviour, RealStepCounter(), env_kwargs))
    return Dataset(
        episodes=episodes,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_id=env_id,
        env_kwargs=env_kwargs,
        max_episode_steps=env.spec.max_episode_steps,
        hash=fingerprint(episodes),
        real_steps=steps,
    )


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows") / "cartpole"
    config = TrainConfig(overrides={"updates": 300, "evaluate_every": 150})
    train(dataset("CartPole-v1", 1500, "mixed"), "ensemble", folder, config=config)
    return folder


def test_a_lane_of_the_ensemble_is_a_value(cartpole):
    found = examine(cartpole, ["A14"], "mixed")
    assert all(check.met for check in found)
    assert found[-1].seen == 8  # forks with luck of their own go their own ways


def test_starts_and_ends_of_the_ensemble_hold(cartpole):
    found = {check.what.partition(" (")[0]: check for check in examine(cartpole, ["A7d", "A7e"], "mixed")}
    assert found["ends, average precision"].met and found["ends, calibration error"].met
    assert found["starts that were never recorded, share"].seen == 1.0


def test_a_world_without_luck_fails_the_row_of_luck(tmp_path):
    folder = tmp_path / "still"
    train(dataset("simservice/FlipBall-v0", 600), "persistence", folder)
    found = examine(folder, ["A7b"])
    assert [check.met for check in found] == [False, True, True, False]
    assert (found[0].seen == pytest.approx(0.3) and "reality 0.3" in found[0].what) or "reality 0.2" in found[0].what
    assert found[-1].seen > 0.9


def test_a_row_needs_its_ground_and_a_name_that_is_known(cartpole):
    with pytest.raises(InvalidInput, match="this row needs FlipBall"):
        examine(cartpole, ["A7b"])
    with pytest.raises(ConfigError, match="there are: A7, A7b"):
        examine(cartpole, ["A99"])


def test_frames_that_leave_reality_are_seen(tmp_path, cartpole):
    data = dataset("CartPole-v1", 200)
    moved = tuple(
        replace(episode, observation={path: rows + 3.0 for path, rows in episode.observation.items()})
        for episode in data.episodes
    )
    train(replace(data, episodes=moved, hash=fingerprint(moved)), "persistence", tmp_path / "moved")
    finite, in_band = stability(Subject.open(tmp_path / "moved"))
    assert finite.met and not in_band.met
    assert all(check.met for check in stability(Subject.open(cartpole, "mixed")))


def test_frames_that_no_code_shows_are_told_from_real_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(long_horizon, "STEPS", 30)
    monkeypatch.setattr(long_horizon, "REAL_STEPS", 300)
    small = {"width": 32, "heads": 2, "layers": 1, "decoder_layers": 1, "window": 1, "decoding": "parallel"}
    schedule = {"tokenizer_updates": 100, "updates": 2, "batch": 4, "segment": 1, "evaluate_every": 2}
    data = dataset("simservice/Catch-v0", 300)
    train(data, "tokens", tmp_path / "codes", config=TrainConfig(overrides={**small, **schedule}))
    subject = Subject.open(tmp_path / "codes")
    real = torch.from_numpy(data.episodes[0].observation["observation"][1])
    noise = torch.randint(0, 256, real.shape, dtype=torch.uint8)
    for shown, alike in ((real, True), (noise, False)):
        monkeypatch.setattr(
            type(subject.world), "emit", lambda world, state, shown=shown: {"observation": shown.repeat(16, 1, 1, 1)}
        )
        *_, found = stability(subject)
        assert "no code shows" in found.what and found.met == alike


def test_a_world_without_error_is_told_to_have_none_and_its_doubt_is_not_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(long_horizon, "STEPS", 30)
    monkeypatch.setattr(long_horizon, "REAL_STEPS", 2000)
    monkeypatch.setattr(knowing, "STEPS", 1000)
    config = TrainConfig(overrides={"env_id": "CartPole-v1"})
    train(dataset("CartPole-v1", 300, "mixed"), "oracle", tmp_path / "truth", config=config)
    found = examine(tmp_path / "truth", ["A7", "A7c"], "mixed")
    told = {check.what.partition(":")[0]: check for check in found}
    assert told["no dream is wrong"].bar == "reported" and told["no dream is wrong"].seen is None
    assert told["no dream of 25 steps is wrong"].seen is None and all(check.met for check in found)
    json.dumps([vars(check) for check in found], allow_nan=False)


def test_what_is_no_number_reaches_no_bar_and_is_nowhere_written_as_one():
    lines = [check("A7", "a share", float("nan"), **bar) for bar in ({"least": 0}, {"most": 0}, {})]
    assert [line.met for line in lines] == [False, False, True]
    assert [line.seen for line in lines] == [None] * 3 and number(lines[0].seen) == "-"


def test_time_limits_told_otherwise_change_no_weight(tmp_path):
    data = dataset("CartPole-v1", 400)
    (found,) = time_limits_leak(data, "ensemble", {"updates": 40, "evaluate_every": 20}, tmp_path)
    assert found.met and found.seen == 0


def test_where_ends_are_decided_a_probability_below_one_half_ends_nothing(cartpole):
    world = load(cartpole).world
    seeds = torch.arange(64)
    sampled, decided = [], []
    for made, ends in ((world, sampled), (Thresholded(world), decided)):
        state = made.init(lane_draws(made.draws["init"], seeds, torch.zeros_like(seeds), "init"))
        for step in range(20):
            draws = lane_draws(made.draws["step"], seeds, torch.full_like(seeds, step), "step")
            state, out = made.step(state, {"action": torch.ones(64, dtype=torch.int64)}, draws)
            ends.append(torch.equal(out.terminated, out.termination_probability > 0.5))
    assert all(decided) and not all(sampled)


def test_samples_of_one_kind_cannot_be_told_apart():
    chance = np.random.default_rng(0)
    left, right = chance.normal(size=(2, 400, 3))
    assert told_apart(left, right) == pytest.approx(0.5, abs=0.1)
    assert told_apart(left + 3, right) > 0.95
    assert auroc(np.array([1.0, 2.0, 3.0]), np.array([False, False, True])) == 1.0
