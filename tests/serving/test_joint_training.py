"""Two Ray workers train one world: after 20 updates its loss is that of a single process."""

import numpy as np
import pytest
import torch
from world_fitting import segments

from simservice.cli import run
from simservice.data.collect import collect
from simservice.data.minari import save_dataset
from simservice.errors import ConfigError
from simservice.serving.joint_training import train_on_workers
from simservice.training.trainer import TrainConfig, train
from simservice.worlds.checkpoint import describe, load

SETTINGS = {
    "members": 2,
    "hidden": 32,
    "rows_per_member": 32,
    "updates": 20,
    "evaluate_every": 20,
    "learning_rate": 1e-3,
}


@pytest.fixture
def dataset(tmp_path):
    episodes = collect("CartPole-v1", steps=300, seed=0)
    return save_dataset(episodes, "test/data-v0", env_id="CartPole-v1", root=tmp_path, real_steps=300)


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_workers_learn_what_one_process_learns(dataset, tmp_path, capsys):
    alone = train(dataset, "ensemble", tmp_path / "alone", config=TrainConfig(overrides=SETTINGS))
    words = ["train", "test/data-v0", "--root", tmp_path, "--out", tmp_path / "together", "--workers", 2]
    settings = [word for name, value in SETTINGS.items() for word in ("-o", f"{name}={value}")]
    assert run([*map(str, words), *settings]) == 0
    assert "on 2 workers: 20 updates" in capsys.readouterr().out
    worlds = [load(tmp_path / name).world for name in ("alone", "together")]
    batch = segments(dataset.episodes, 64, 1, np.random.default_rng(0))
    with torch.no_grad():
        losses = [float(world.loss(batch, {}, "networks")[0]) for world in worlds]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    found = describe(tmp_path / "together")[1].fidelity["k_step_nrmse"]["1"]
    assert found == pytest.approx(alone.evaluation.errors[1].world, rel=1e-3)


def test_no_workers_are_refused(dataset, tmp_path):
    with pytest.raises(ConfigError, match="workers"):
        train_on_workers(dataset, "ensemble", tmp_path / "w", 0)
