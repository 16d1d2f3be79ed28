"""Reality is out of reach where a world is served and an agent learns; what it sees does not depend on the way."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from simservice.data.collect import RealStepCounter
from simservice.data.environments import make_environment
from simservice.data.episodes import Dataset, fingerprint
from simservice.errors import InternalError
from simservice.proving.agent import AgentConfig
from simservice.proving.processes import Errand, served, train_agents
from simservice.proving.record import record
from simservice.training.trainer import TrainConfig, train
from simservice.types import Context
from simservice.worlds.checkpoint import load
from simservice.worlds.rollout import imagine

AGENT = AgentConfig(lanes=16, horizon=32, steps=1024, minibatch=256, reward_scale=0.1)
WEAK, STRONG = 9.8, 19.6  # gravity


def dataset(gravity):
    env = make_environment("CartPole-v1", attributes={"gravity": gravity})
    episodes = []
    for seed in range(40):  # recorded by hand: recipes know no changed physics
        env.action_space.seed(seed)
        seen, acted, ended = [env.reset(seed=seed)[0]], [], False
        while not ended:
            acted.append(env.action_space.sample())
            observation, _, terminated, truncated, _ = env.step(acted[-1])
            seen.append(observation)
            ended = terminated or truncated
        episodes.append((np.stack(seen), np.array(acted), terminated))
    like = record("CartPole-v1", 1, 0, "random", RealStepCounter())[0]
    made = tuple(
        replace(
            like,
            observation={"observation": rows},
            action={"action": actions},
            reward=np.ones(len(actions)),
            terminated=bool(terminated),
        )
        for rows, actions, terminated in episodes
    )
    return Dataset(
        episodes=made,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_id="CartPole-v1",
        max_episode_steps=500,
        hash=fingerprint(made),
        real_steps=sum(map(len, made)),
    )


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    config = TrainConfig(overrides={"updates": 300, "evaluate_every": 150})
    for name, gravity in (("weak", WEAK), ("strong", STRONG)):
        train(dataset(gravity), "ensemble", folder / name, config=config)
    return folder


def test_an_agent_is_the_same_bit_for_bit_through_the_client_and_in_the_same_lanes(worlds, tmp_path):
    with served(worlds / "weak", "CartPole-v1", tmp_path) as address:
        far = Errand(worlds / "weak", 3, tmp_path / "far", address)
        (through,) = train_agents([far], AGENT, "CartPole-v1")
    near = Errand(worlds / "weak", 3, tmp_path / "near")
    (beside,) = train_agents([near], AGENT, "CartPole-v1")
    assert through["world_return"] == beside["world_return"]
    weights = [load_file(tmp_path / f"{name}.safetensors") for name in ("far", "near")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert json.loads((tmp_path / "far.job.json").read_text())["client_only"]


def test_an_agent_is_not_let_into_a_sealed_process_with_the_real_environment(worlds, tmp_path):
    errand = Errand(worlds / "weak", 0, tmp_path / "agent")
    with pytest.raises(InternalError, match="is not behind the wall: the process is not sealed"):
        train_agents([errand], AGENT, "simservice.client:simservice/World-v0")  # an id that no wall can take away


@pytest.mark.parametrize(
    ("wall", "wanted"),
    [
        ("REALITY", "simservice.grounds.catch"),
        ("REALITY", "gymnasium.envs.classic_control.cartpole"),
        ("(*REALITY, *HOUSE)", "simservice.worlds.checkpoint"),
        ("(*REALITY, *HOUSE)", "simservice.data"),
    ],
)
def test_what_is_behind_the_wall_cannot_be_imported(wall, wanted):
    program = (
        f"from simservice.proving.sealed import REALITY, HOUSE, build_wall; build_wall({wall})\n"
        "import simservice.client, simservice.proving.agent_process\n"
        f"import importlib; importlib.import_module({wanted!r})"
    )
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert found.returncode == 1 and "is sealed off from this process" in found.stderr


def test_physics_come_from_the_weights(worlds):
    """A process without any environment: the world of doubled gravity falls as reality does there."""
    program = (
        "from simservice.proving.sealed import REALITY, build_wall; build_wall(REALITY)\n"
        "import sys, numpy as np\n"
        "from simservice.worlds.checkpoint import load\n"
        "from simservice.worlds.rollout import imagine\n"
        "from simservice.types import Context\n"
        "rows = np.array([[0.0, 0.0, angle, 0.0] for angle in (-0.1, -0.05, 0.05, 0.1)], np.float32)\n"
        "for folder in sys.argv[1:]:\n"
        "    world = load(folder).world\n"
        "    start = Context({'observation': rows[:, None]}, {})\n"
        "    seen = [imagine(world, {'action': np.full((4, 4), a)}, context=start) for a in (0, 1)]\n"
        "    turned = np.mean([found.observation['observation'][:, -1, 3] for found in seen], 0)\n"
        "    print(float((turned / rows[:, 2]).mean()))\n"
    )
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(worlds / "weak"), str(worlds / "strong")],
        capture_output=True,
        text=True,
        check=True,
    )
    imagined = [float(line) for line in found.stdout.split()]
    real = [true_fall(gravity) for gravity in (WEAK, STRONG)]
    assert real[1] > 1.8 * real[0]
    assert imagined == pytest.approx(real, rel=0.15)


def true_fall(gravity):
    """How fast the pole turns after four steps, per angle at the start, mean over both actions."""
    env = make_environment("CartPole-v1", attributes={"gravity": gravity})
    found = []
    for angle in (-0.1, -0.05, 0.05, 0.1):
        turned = []
        for action in (0, 1):
            env.reset(seed=0)
            env.unwrapped.state = (0.0, 0.0, angle, 0.0)
            for _ in range(4):
                env.unwrapped.step(action)
            turned.append(env.unwrapped.state[3])
        found.append(np.mean(turned) / angle)
    return float(np.mean(found))


def test_swapped_weights_swap_the_physics(worlds):
    """The same object, other weights: nothing of the dynamics lies in the code."""
    weak, strong = load(worlds / "weak").world, load(worlds / "strong").world
    start = Context({"observation": np.array([[[0.0, 0.0, 0.1, 0.0]]], np.float32)}, {})
    actions = {"action": np.array([[0, 1] * 5])}
    before = imagine(weak, actions, context=start).observation["observation"]
    wanted = imagine(strong, actions, context=start).observation["observation"]
    weak.load_state_dict(strong.state_dict())
    weak.set_starts(strong.starts())
    after = imagine(weak, actions, context=start).observation["observation"]
    assert np.array_equal(after, wanted) and not np.array_equal(after, before)
