"""Two Ray workers train one world: after 20 updates its loss is that of a single process."""

import numpy as np
import pytest
import torch
from world_fitting import segments

from simservice.data.collect import collect
from simservice.data.environments import make_environment
from simservice.data.episodes import Dataset, fingerprint
from simservice.errors import ConfigError
from simservice.serving.joint_training import train_on_workers
from simservice.training.trainer import TrainConfig, train
from simservice.worlds.checkpoint import load

SETTINGS = {
    "members": 2,
    "hidden": 32,
    "rows_per_member": 32,
    "updates": 20,
    "evaluate_every": 20,
    "learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def dataset():
    env = make_environment("CartPole-v1")
    episodes = tuple(collect("CartPole-v1", steps=300, seed=0))
    return Dataset(
        episodes=episodes,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_id="CartPole-v1",
        dataset_id="test/data-v0",
        hash=fingerprint(episodes),
        real_steps=300,
    )


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_workers_learn_what_one_process_learns(dataset, tmp_path):
    config = TrainConfig(overrides=SETTINGS)
    alone = train(dataset, "ensemble", tmp_path / "alone", config=config)
    found = train_on_workers(dataset, "ensemble", tmp_path / "together", 2, config=config)
    worlds = [load(tmp_path / name).world for name in ("alone", "together")]
    batch = segments(dataset.episodes, 64, 1, np.random.default_rng(0))
    with torch.no_grad():
        losses = [float(world.loss(batch, {}, "networks")[0]) for world in worlds]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert found["updates"] == alone.updates == 20
    assert found["errors"]["1"]["world"] == pytest.approx(alone.evaluation.errors[1].world, rel=1e-3)


def test_no_workers_are_refused(dataset, tmp_path):
    with pytest.raises(ConfigError, match="workers"):
        train_on_workers(dataset, "ensemble", tmp_path / "w", 0)
