"""Training: its folder, its figures, and that interruptions and repetitions change nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from toy import Toy, ToyConfig

from simservice.data.collect import collect
from simservice.data.environments import make_environment
from simservice.data.episodes import Dataset, fingerprint
from simservice.errors import ConfigError, InvalidInput, UnknownFamily
from simservice.training.state import state_file
from simservice.training.trainer import TrainConfig, train
from simservice.worlds import checkpoint, registry
from simservice.worlds.world import Phase

TINY = {"members": 2, "hidden": 32, "rows_per_member": 32, "updates": 60, "evaluate_every": 20}


def recorded(env_id="CartPole-v1", steps=300, seed=0):
    env = make_environment(env_id)
    episodes = tuple(collect(env_id, steps=steps, seed=seed))
    return Dataset(
        episodes=episodes,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_id=env_id,
        max_episode_steps=env.spec.max_episode_steps,
        dataset_id="test/data-v0",
        hash=fingerprint(episodes),
        real_steps=steps,
    )


@pytest.fixture(scope="module")
def dataset():
    return recorded()


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """One training's folder and summary."""
    out = tmp_path_factory.mktemp("training") / "cart"
    return out, train(dataset, "ensemble", out, config=TrainConfig(overrides=TINY))


class Killed(Exception):
    """Stands for a SIGKILL: nothing after it runs but what the next process does."""


def killed_at(share):
    def progress(words, done):
        if done >= share and "update" in words:
            raise Killed

    return progress


def test_the_folder_is_a_world_that_says_where_it_comes_from(dataset, finished):
    out, summary = finished
    loaded = checkpoint.load(out)
    assert loaded.world.spec.full_name == f"cart@{summary.version}"
    assert loaded.world.spec.max_episode_steps == 500
    assert loaded.provenance.env_id == "CartPole-v1"
    assert loaded.provenance.dataset_hash == dataset.hash
    assert loaded.provenance.real_steps == 300
    assert loaded.provenance.fidelity["k_step_nrmse"]["1"] == summary.evaluation.errors[1].world
    assert not state_file(out).exists()


def test_the_summary_counts_steps_and_updates(dataset, finished):
    _, summary = finished
    assert summary.real_steps == 300
    assert summary.training_steps + summary.held_out_steps == dataset.steps
    assert summary.updates == 60
    assert [update for update, _ in summary.history] == [20, 40, 60]
    assert summary.evaluation.errors[1].world < summary.evaluation.errors[1].persistence


def test_the_same_seed_gives_the_same_world_and_another_one_does_not(dataset, finished, tmp_path):
    again = train(dataset, "ensemble", tmp_path / "again", config=TrainConfig(overrides=TINY))
    other = train(dataset, "ensemble", tmp_path / "other", config=TrainConfig(overrides=TINY, seed=1))
    assert again.version == finished[1].version
    assert other.version != finished[1].version


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_killed_training_goes_on_to_the_same_world(dataset, finished, tmp_path, share):
    tiny = {**TINY, "updates": 200, "evaluate_every": 50}
    whole = train(dataset, "ensemble", tmp_path / "whole", config=TrainConfig(overrides=tiny))
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        train(dataset, "ensemble", out, config=TrainConfig(overrides=tiny), progress=killed_at(share))
    assert state_file(out).exists() and not out.exists()
    seen = []
    resumed = train(
        dataset,
        "ensemble",
        out,
        config=TrainConfig(overrides=tiny, resume=True),
        progress=lambda words, done: seen.append(done),
    )
    assert resumed.version == whole.version
    assert resumed.history == whole.history
    assert min(seen) >= share - 0.3  # it went on, and did not begin again
    assert not state_file(out).exists()


class TwoStages(Toy):
    """A toy that learns one number in two stages; its losses draw random numbers, and the second is never scored."""

    family = "two-stages"

    def __init__(self, spec, config=None):
        super().__init__(replace(spec, family=self.family, capabilities=frozenset({"context"})), config or ToyConfig())
        self.number = nn.Parameter(torch.zeros(16))

    def phases(self):
        common = {"batch_size": 8, "segment_length": 1, "updates": 60, "evaluate_every": 20}
        scored = Phase(name="one", learning_rate=1e-2, weight_decay=0.3, **common)
        unscored = Phase(name="two", learning_rate=1e-2, max_gradient_norm=0.01, open_loop=False, **common)
        return scored, unscored

    def loss(self, batch, draws, phase):
        return (self.number - torch.randn(16)).square().mean(), {}


class Unmoved(TwoStages):
    """One stage whose forecasts are told, always the same, and choose nothing if the last weights are to stay."""

    family = "unmoved"
    keep_last = False

    def phases(self):
        return (replace(super().phases()[0], keep_last=self.keep_last),)


def test_where_the_last_weights_are_to_stay_no_forecast_chooses_or_ends_early(dataset, tmp_path):
    registry.register(Unmoved)
    ended = train(dataset, "unmoved", tmp_path / "chosen", config=TrainConfig(patience=1))
    Unmoved.keep_last = True
    whole = train(dataset, "unmoved", tmp_path / "last", config=TrainConfig(patience=1))
    assert [update for update, _ in ended.history] == [20, 40] and len({score for _, score in whole.history}) == 1
    assert [update for update, _ in whole.history] == [20, 40, 60]
    first, last = (checkpoint.load(tmp_path / name).world.number for name in ("chosen", "last"))
    assert not torch.equal(first, last)


@pytest.mark.parametrize("share", [0.2, 0.45, 0.9])
def test_stages_whose_losses_draw_random_numbers_are_resumed_to_the_same_world(dataset, tmp_path, share):
    registry.register(TwoStages)
    whole = train(dataset, "two-stages", tmp_path / "whole")
    assert [update for update, _ in whole.history] == [20, 40, 60]  # the second stage ran to its end, unscored
    assert whole.updates == 120
    weights = checkpoint.load(tmp_path / "whole").world.number
    assert weights.abs().max() > 0  # the last weights stayed: no score of the toy ever changes
    with pytest.raises(Killed):
        train(dataset, "two-stages", tmp_path / "killed", progress=killed_at(share))
    resumed = train(dataset, "two-stages", tmp_path / "killed", config=TrainConfig(resume=True))
    assert resumed.version == whole.version


def test_a_training_leaves_the_callers_random_numbers_alone(dataset, tmp_path):
    registry.register(TwoStages)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(dataset, "two-stages", tmp_path / "w")
    assert torch.equal(torch.rand(4), expected)


def test_a_training_is_not_resumed_with_other_settings(dataset, tmp_path):
    out = tmp_path / "killed"
    tiny = {**TINY, "updates": 200}
    with pytest.raises(Killed):
        train(dataset, "ensemble", out, config=TrainConfig(overrides=tiny), progress=killed_at(0.5))
    with pytest.raises(InvalidInput, match="other data, family, seed or settings"):
        train(dataset, "ensemble", out, config=TrainConfig(overrides=tiny, seed=5, resume=True))


def test_a_damaged_training_state_is_said(dataset, tmp_path):
    state_file(tmp_path / "world").write_bytes(b"no tensors")
    with pytest.raises(InvalidInput, match="damaged"):
        train(dataset, "ensemble", tmp_path / "world", config=TrainConfig(overrides=TINY, resume=True))


def test_resume_without_an_unfinished_training_begins_one(dataset, finished, tmp_path):
    config = TrainConfig(overrides=TINY, resume=True)
    assert train(dataset, "ensemble", tmp_path / "world", config=config).version == finished[1].version


def test_a_warm_start_begins_where_the_older_world_stands(finished, tmp_path):
    more = recorded(steps=400, seed=1)
    config = TrainConfig(overrides={"updates": 1, "learning_rate": 1e-9}, warm_start=finished[0])
    warm = train(more, "ensemble", tmp_path / "warm", config=config)
    one = TrainConfig(overrides={**TINY, "updates": 1, "learning_rate": 1e-9})
    cold = train(more, "ensemble", tmp_path / "cold", config=one)
    assert warm.history[0][1] < cold.history[0][1]
    old, new = (checkpoint.load(folder).world for folder in (finished[0], warm.path))
    assert new.config.members == 2
    assert np.allclose(old.weights()["dynamics.weight_0"], new.weights()["dynamics.weight_0"], atol=1e-6)


def test_a_warm_start_from_another_environment_is_refused(finished, tmp_path):
    config = TrainConfig(warm_start=finished[0])
    with pytest.raises(InvalidInput, match="observation_space"):
        train(recorded("Pendulum-v1", 60), "ensemble", tmp_path / "w", config=config)


def test_a_warm_start_with_other_networks_is_refused(dataset, finished, tmp_path):
    config = TrainConfig(warm_start=finished[0], overrides={"hidden": 64})
    with pytest.raises(InvalidInput, match="another shape"):
        train(dataset, "ensemble", tmp_path / "w", config=config)


def test_training_ends_early_when_the_held_out_error_does_not_fall(dataset, tmp_path):
    still = {**TINY, "updates": 2000, "evaluate_every": 5, "learning_rate": 0.5}
    summary = train(dataset, "ensemble", tmp_path / "w", config=TrainConfig(overrides=still, patience=2))
    assert summary.history[-1][0] < 2000
    best = min(score for _, score in summary.history)
    assert [score for _, score in summary.history[-2:]] >= [best, best]


def test_families_that_prepare_finishes_are_trained_with_the_same_call(dataset, tmp_path):
    summary = train(dataset, "linear", tmp_path / "w")
    assert summary.updates == 0 and summary.history == []
    assert summary.evaluation.errors[1].world == pytest.approx(summary.evaluation.errors[1].linear, rel=0.2)


def test_a_diverging_training_is_said(dataset, tmp_path):
    broken = replace(
        dataset,
        episodes=tuple(
            replace(e, reward=np.where(e.reward > 0, 1e38 * (-1.0) ** np.arange(len(e)), 0)) for e in dataset.episodes
        ),
    )
    with pytest.raises(ConfigError, match="diverged at update"):
        train(broken, "ensemble", tmp_path / "w", config=TrainConfig(overrides={**TINY, "learning_rate": 1e30}))
    assert not (tmp_path / "w").exists()


def test_a_folder_that_is_no_world_is_not_overwritten(dataset, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="is not a world"):
        train(dataset, "ensemble", tmp_path, config=TrainConfig(overrides=TINY))


def test_unknown_families_and_settings_are_named(dataset, tmp_path):
    with pytest.raises(UnknownFamily, match="ensemble"):
        train(dataset, "ensembel", tmp_path / "w")
    with pytest.raises(ConfigError, match="members"):
        train(dataset, "ensemble", tmp_path / "w", config=TrainConfig(overrides={"member": 3}))


def test_the_training_state_holds_json_and_tensors_only(dataset, tmp_path):
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        train(dataset, "ensemble", out, config=TrainConfig(overrides={**TINY, "updates": 200}), progress=killed_at(0.5))
    header = state_file(out).read_bytes()
    length = int.from_bytes(header[:8], "little")
    position = json.loads(json.loads(header[8 : 8 + length])["__metadata__"]["position"])
    assert position["update"] == 80 and position["place"] == 0


def test_spaces_a_family_does_not_take_are_refused(dataset, tmp_path):
    with pytest.raises(InvalidInput, match="observation"):
        train(replace(dataset, observation_space=spaces.Text(4)), "ensemble", tmp_path / "w")


def test_progress_tells_the_error_steps_ahead_and_the_time_left(dataset, tmp_path):
    said = []
    tiny = {**TINY, "updates": 150, "evaluate_every": 50}
    config = TrainConfig(overrides=tiny)
    train(dataset, "ensemble", tmp_path / "w", config=config, progress=lambda words, share: said.append(words))
    assert " left" in said[1] and " at 1 / 5 / 10" in said[1]


def test_figures_go_to_tensorboard(dataset, tmp_path):
    from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415

    config = TrainConfig(overrides=TINY, tensorboard=tmp_path / "figures")
    train(dataset, "ensemble", tmp_path / "w", config=config)
    written = b"".join(path.read_bytes() for path in (tmp_path / "figures").iterdir())
    names, offset = set(), 0
    while offset < len(written):  # length, its checksum, the event, its checksum
        length = int.from_bytes(written[offset : offset + 8], "little")
        event = Event.FromString(written[offset + 12 : offset + 12 + length])
        names |= {value.tag for value in event.summary.value}
        offset += length + 16
    assert {"loss", "loss/dynamics", "learning_rate", "open_loop", "open_loop/1"} <= names


def test_bfloat16_losses_train_and_count_as_another_training(dataset, finished, tmp_path):
    summary = train(dataset, "ensemble", tmp_path / "w", config=TrainConfig(overrides=TINY, precision="bfloat16"))
    assert summary.version != finished[1].version
    assert np.isfinite(summary.evaluation.errors[1].world)


def test_compiled_losses_train_the_same_world_but_for_rounding(dataset, finished, tmp_path):
    summary = train(dataset, "ensemble", tmp_path / "w", config=TrainConfig(overrides=TINY, compiler="eager"))
    assert summary.evaluation.errors[1].world == pytest.approx(finished[1].evaluation.errors[1].world, rel=1e-3)
