"""The example agents run against a served world as a user runs them, and learn in it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from cartpole_world import served_cartpole

from simservice.client.policy import load_policy

AGENTS = Path(__file__).parents[2] / "agents"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served_cartpole(tmp_path_factory.mktemp("worlds")) as served:
        yield served


def run(script, address, *arguments):
    command = [sys.executable, AGENTS / script, "--address", address, "--world", "cartpole", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def test_random_play_tells_returns_and_speed(address):
    told = run("random_policy.py", address, "--num-envs", 16, "--steps", 100)
    assert "1,600 imagined steps" in told
    mean = float(told.split("mean return ")[1].split(",")[0])
    assert 15 < mean < 35  # random play of CartPole


def test_ppo_on_rllib_writes_a_policy_that_acts(address, tmp_path):
    told = run("ppo_rllib.py", address, "--steps", 4_096, "--out", tmp_path / "policy.npz")
    assert "imagined steps at" in told
    actions = load_policy(tmp_path / "policy.npz").greedy()(np.zeros((3, 4), np.float32))
    assert set(actions) <= {0, 1}


def test_transfer_prints_dream_and_reality_side_by_side(address):
    told = run("transfer.py", address, "--env", "CartPole-v1", "--seeds", 1, "--episodes", 5, "--steps", 4_096)
    rows = [line.split() for line in told.splitlines()]
    assert [row[0] for row in rows[1:]] == ["random", "seed", "all"]


sb3 = pytest.mark.skipif(importlib.util.find_spec("stable_baselines3") is None, reason="the extra sb3 is not installed")


@pytest.fixture(scope="module")
def ppo_sb3():
    specification = importlib.util.spec_from_file_location("ppo_sb3", AGENTS / "ppo_sb3.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@sb3
def test_the_served_world_passes_sb3s_own_check(address):
    from stable_baselines3.common.env_checker import check_env  # noqa: PLC0415 - an optional extra

    env = gym.make("simservice.client:simservice/World-v0", address=address, world="cartpole")
    check_env(env, warn=True)
    env.close()


@sb3
def test_sb3_ppo_at_least_doubles_its_return(address, ppo_sb3):
    from stable_baselines3 import PPO  # noqa: PLC0415
    from stable_baselines3.common.vec_env import VecMonitor  # noqa: PLC0415

    envs = VecMonitor(ppo_sb3.ServedVecEnv(address, "cartpole", 16))
    model = PPO("MlpPolicy", envs, n_steps=64, batch_size=256, learning_rate=2e-3, gamma=0.98, seed=0, device="cpu")
    model.learn(1_024)
    first = np.mean([episode["r"] for episode in model.ep_info_buffer])
    model.learn(14_336, reset_num_timesteps=False)
    last = np.mean([episode["r"] for episode in list(model.ep_info_buffer)[-30:]])
    envs.close()
    assert last > 2 * first


@sb3
def test_a_lane_that_ends_hands_its_last_observation_to_sb3(address, ppo_sb3):
    envs = ppo_sb3.ServedVecEnv(address, "cartpole", 4)
    envs.seed(0)
    observation = envs.reset()
    for _ in range(200):
        before = observation
        observation, reward, ended, infos = envs.step(np.ones(4, dtype=np.int64))
        assert reward.dtype == np.float32
        if ended.any():
            break
    lane = int(np.flatnonzero(ended)[0])
    last = infos[lane]["terminal_observation"]
    assert abs(last[2]) > 0.2094  # where the pole has fallen
    assert np.abs(observation[lane]).max() <= 0.05  # a fresh start
    assert np.abs(last - before[lane]).max() < 1.0
    assert infos[lane]["TimeLimit.truncated"] is False
    assert all("terminal_observation" not in infos[i] for i in np.flatnonzero(~ended))
    envs.close()
