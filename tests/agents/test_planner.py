"""Planning by imagined futures: what is chosen is what the exact toy world makes best, and reality is driven by it."""

import importlib.util
import itertools
import sys
from contextlib import closing
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from cartpole_world import served_cartpole
from gymnasium import spaces
from test_agents import run

from simservice.serving.local import LocalServer

AGENTS = Path(__file__).parents[2] / "agents"
HORIZON = 4
STARTS = np.array([[0.0] * 4, [1.0] * 4, [2.6] * 4, [-2.6] * 4], np.float32)


@pytest.fixture(scope="module")
def planning():
    sys.path.insert(0, str(AGENTS))
    try:
        specification = importlib.util.spec_from_file_location("cem_planner", AGENTS / "cem_planner.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(AGENTS))


@pytest.fixture(scope="module")
def toy_server(save_toy):
    box = {"action_space": spaces.Box(-1.0, 1.0, (2,), np.float32)}
    with LocalServer([save_toy(push=0.4), save_toy(name="smooth", push=0.4, spec=box)], store_url="memory:") as server:
        yield server


def planner(planning, world, method, **settings):
    weigh = planning.cross_entropy(6) if method == "cem" else planning.path_integral(0.1)
    shared = {"horizon": HORIZON, "samples": 64, "iterations": 4, "discount": 1.0, "seed": 0}
    return planning.Planner(world, weigh, **{**shared, **settings})


def make(server, world):
    return gym.make_vec(
        "simservice.client:simservice/World-v0",
        num_envs=len(STARTS),
        vectorization_mode="vector_entry_point",
        address=server.address,
        world=world,
    )


def true_return(start, pushes):
    x, total = start.astype(np.float64), 0.0
    for push in pushes:
        x = x * 1.05 + 0.4 * push
        total += x.sum()
        if (np.abs(x) > 3.0).any():
            break
    return total


@pytest.mark.parametrize("method", ["cem", "mppi"])
def test_the_first_action_begins_a_sequence_as_good_as_the_best_of_all_to_one_percent(planning, toy_server, method):
    with closing(make(toy_server, "toy")) as world:
        thinking = planner(planning, world, method)
        first = thinking.act({"observation": STARTS[:, None]}) - 1
        for start, push in zip(STARTS, first, strict=True):
            best = max(true_return(start, pushes) for pushes in itertools.product((-1, 0, 1), repeat=HORIZON))
            after = itertools.product((-1, 0, 1), repeat=HORIZON - 1)
            assert max(true_return(start, (push, *rest)) for rest in after) >= best - 0.01 * abs(best)
        assert first[0] == 1  # pushed up, but where that would end the episode at once
        assert first[2] < 1


@pytest.mark.parametrize("method", ["cem", "mppi"])
def test_continuous_actions_reach_their_bound_where_more_is_better(planning, toy_server, method):
    with closing(make(toy_server, "smooth")) as world:
        thinking = planner(planning, world, method, samples=128, iterations=5)
        first = thinking.act({"observation": STARTS[:, None]})
    assert first.shape == (4, 2) and first.dtype == np.float32
    assert (first[:1].sum(-1) > 1.5).all()  # of at most 2


def test_imagined_returns_are_the_worlds_own_and_stop_with_the_episode(planning, toy_server):
    with closing(make(toy_server, "toy")) as world:
        thinking = planner(planning, world, "cem", samples=2)
        world.reset(options={"context": {"observation": STARTS[:, None]}})
        tried = np.stack([np.full((HORIZON, 4), 2), np.full((HORIZON, 4), 1)], -1)
        found = thinking.returns(tried)
    wanted = [[true_return(start, [push] * HORIZON) for push in (1, 0)] for start in STARTS]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_weights_of_both_methods_prefer_the_best_and_sum_to_one(planning):
    returns = np.array([[0.0, 3.0, 1.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    np.testing.assert_allclose(planning.cross_entropy(2)(returns)[0], [0, 0.5, 0, 0.5])
    soft = planning.path_integral(0.5)(returns)
    np.testing.assert_allclose(soft.sum(1), 1.0)
    assert soft[0].argmax() == 1
    np.testing.assert_allclose(soft[1], 0.25)


def test_beliefs_forget_their_first_step_and_stay_inside_the_space():
    sys.path.insert(0, str(AGENTS))
    from sequences import believe  # noqa: PLC0415 - a script's neighbour

    sys.path.remove(str(AGENTS))
    space = spaces.Discrete(3, start=-1)
    belief = believe(space, 2, 1)
    belief.refit(np.array([[[1]], [[-1]]]), np.ones((1, 1)))
    assert belief.first() == [1]
    belief.shift()
    assert belief.first() == [-1]
    assert set(np.unique(belief.sample(200, np.random.default_rng(0)))) == {-1, 0, 1}
    with pytest.raises(SystemExit, match="Discrete actions or a Box with bounds"):
        believe(spaces.Box(-np.inf, np.inf, (1,)), 2, 1)


def test_the_script_keeps_a_real_cartpole_up(tmp_path):
    words = ("--env", "CartPole-v1", "--episodes", 3, "--horizon", 15, "--samples", 32, "--max-steps", 60)
    with served_cartpole(tmp_path) as address:
        told = run("cem_planner.py", address, *words, "--frames", 2)
    random, planned = (float(line.split("mean return ")[1].split(",")[0]) for line in told.splitlines())
    assert random < 45 and planned >= 55
