"""A step as a CUDA graph moves the weights as the same step called line by line."""

import numpy as np
import pytest
import torch

from simservice.data.collect import RealStepCounter
from simservice.data.environments import close, make_environment
from simservice.data.episodes import Dataset, fingerprint
from simservice.proving.record import record
from simservice.training.trainer import TrainConfig, train
from simservice.worlds.checkpoint import load
from simservice.worlds.families.rssm import Rssm

SMALL = {"updates": 6, "evaluate_every": 3, "batch_size": 8, "segment_length": 4, "depth": 16, "keep_last": True}


def dataset():
    made = tuple(record("simservice/Catch-v0", 210, 0, "random", RealStepCounter()))
    environment = make_environment("simservice/Catch-v0")
    spaces = {"observation_space": environment.observation_space, "action_space": environment.action_space}
    close(environment)
    return Dataset(
        episodes=made,
        env_id="simservice/Catch-v0",
        hash=fingerprint(made),
        real_steps=210,
        max_episode_steps=7,
        **spaces,
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_graph_of_a_step_moves_the_weights_as_the_step_does(tmp_path, monkeypatch):
    found = []
    for graphed in (True, False):
        monkeypatch.setattr(Rssm, "graphed_loss", graphed)
        out = tmp_path / str(graphed)
        train(dataset(), "rssm", out, config=TrainConfig(overrides=SMALL, device="cuda"))
        found.append(load(out).world.weights())
    for name, weight in found[0].items():
        np.testing.assert_allclose(weight.numpy(), found[1][name].numpy(), atol=2e-3, err_msg=name)
