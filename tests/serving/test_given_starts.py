"""A user's own frame begins an episode of a served world, whatever the family; garbage is refused, or told as such."""

import gymnasium as gym
import numpy as np
import pytest
from world_fitting import CATCH, SMALLER, trained

from simservice.errors import InvalidInput
from simservice.grounds import catch
from simservice.proving.rows.ground import auroc
from simservice.serving.local import LocalConfig, LocalServer

LANES = 32
SETTINGS = {
    "tokens": {**SMALLER["tokens"], "tokenizer_updates": 300, "updates": 60, "evaluate_every": 60},
    "rssm": {"depth": 16, "batch_size": 16, "segment_length": 7, "updates": 20, "evaluate_every": 20},
    "diffusion": {**SMALLER["diffusion"], "patch": 2, "channels": [16, 16], "updates": 300},
}


@pytest.fixture(scope="module", params=SETTINGS)
def envs(request, tmp_path_factory):
    folder = trained(request.param, tmp_path_factory.mktemp("worlds"), SETTINGS[request.param])
    with LocalServer([folder], store_url="memory:", config=LocalConfig(grace_s=0.1)) as server:
        made = gym.make_vec(
            "simservice.client:simservice/World-v0", num_envs=LANES, address=server.address, world=folder.name
        )
        yield request.param, made
        made.close()


def frames():
    """(LANES, 32, 32, 3) real frames of episodes that nobody recorded, from their middle."""
    env, found = gym.make(f"simservice.grounds:{CATCH}"), []
    for lane in range(LANES):
        frame, _ = env.reset(seed=9_000_000 + lane)
        for step in range(lane % 5):
            frame, *_ = env.step((lane + step) % 3)
        found.append(frame)
    return np.stack(found)


def begun(envs, given):
    """What is seen where the user's frames stand, and one step's uncertainty from there."""
    observation, _ = envs.reset(seed=1, options={"context": {"observation": given[:, None]}})
    *_, infos = envs.step(np.ones(LANES, np.int64))
    return observation, infos["uncertainty"]


def test_an_episode_begins_at_the_users_frame_and_garbage_is_told_by_its_uncertainty(envs):
    _, envs = envs
    real = frames()
    seen, doubt = begun(envs, real)
    wanted, found = catch.read(real), catch.read(seen)
    assert all((found[name] == wanted[name]).mean() > 0.9 for name in ("ball_row", "ball_column"))
    noise = np.random.default_rng(0).integers(0, 256, real.shape, dtype=np.uint8)
    label = np.repeat([False, True], LANES)
    assert auroc(np.concatenate([doubt, begun(envs, noise)[1]]), label) > 0.9


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros((LANES, 1, 16, 16, 3), np.uint8), r"\(32, 32, 3\) is expected"),
        (np.zeros((LANES, 1, 32, 32, 3), np.float32), "uint8 is expected"),
        (np.zeros((5, 1, 32, 32, 3), np.uint8), r"\(32, 1\) expected"),
        ("a picture", "observation"),
    ],
)
def test_what_is_no_frame_of_the_world_is_refused_and_changes_nothing(envs, given, told):
    _, envs = envs
    begun(envs, frames())
    with pytest.raises(InvalidInput, match=told):
        envs.reset(options={"context": {"observation": given}})
    observation, *_ = envs.step(np.ones(LANES, np.int64))
    assert observation.shape == (LANES, 32, 32, 3)
