"""Many imagined steps at once: what they are for a world whose answer is known."""

import numpy as np
import pytest
from toy import Toy, ToyConfig, toy_spec

from simservice.errors import InvalidInput
from simservice.types import Context
from simservice.worlds.rollout import Rollout, bucket, imagine


def toy(**config):
    return Toy(toy_spec(), ToyConfig(**config))


def context(lanes, frames=1, seed=0):
    rows = np.random.default_rng(seed).uniform(-0.3, 0.3, (lanes, frames, 4)).astype(np.float32)
    return Context({"observation": rows}, {"action": np.zeros((lanes, frames - 1), np.int64)})


def act(lanes, steps, seed=0):
    return {"action": np.random.default_rng(seed).integers(0, 3, (lanes, steps))}


@pytest.mark.parametrize("lanes", [1, 16, 17, 70])
def test_a_rollout_follows_the_world_from_its_context(lanes):
    start, actions = context(lanes, frames=3), act(lanes, 9)
    rollout = imagine(toy(), actions, context=start, lanes_at_once=64)
    x = start.observation["observation"][:, -1].astype(np.float64)
    assert np.array_equal(rollout.observation["observation"][:, 0], x.astype(np.float32))
    for time in range(9):
        x = 1.05 * x + 0.1 * (actions["action"][:, time, None] - 1)
        assert np.allclose(rollout.observation["observation"][:, time + 1], x, atol=1e-6)
        assert np.allclose(rollout.reward[:, time], x.sum(-1), atol=1e-6)
    assert rollout.reward.dtype == np.float64 and rollout.terminated.dtype == np.bool_
    assert rollout.uncertainty.shape == (lanes, 9)


def test_a_lanes_rollout_depends_on_its_seed_alone():
    world, actions = toy(noise=0.1), act(20, 6)
    seeds = np.arange(20) + 5
    together = imagine(world, actions, seeds=seeds)
    order = np.random.default_rng(0).permutation(20)
    shuffled = imagine(world, {"action": actions["action"][order]}, seeds=seeds[order])
    found, expected = shuffled.observation["observation"], together.observation["observation"][order]
    assert np.array_equal(found, expected)
    other = imagine(world, actions, seeds=seeds + 100)
    assert not (other.observation["observation"] == together.observation["observation"]).any()


def test_without_a_context_lanes_start_where_the_world_starts_them():
    rollout = imagine(toy(start=0.25), act(64, 0))
    starts = rollout.observation["observation"]
    assert starts.shape == (64, 1, 4) and rollout.reward.shape == (64, 0)
    assert np.abs(starts).max() <= 0.25 and len(np.unique(starts)) > 200


def test_alive_covers_the_step_that_ends_a_lane_and_none_after():
    ended = np.array([[False, True, False, True], [False] * 4, [True] * 4])
    rollout = Rollout({}, np.zeros((3, 4)), ended, np.zeros((3, 4)), np.zeros((3, 4)))
    assert rollout.alive.tolist() == [[True, True, False, False], [True] * 4, [True, False, False, False]]


def test_batches_take_prepared_sizes():
    assert [bucket(n) for n in (1, 16, 17, 256, 257, 5000)] == [16, 16, 64, 256, 1024, 1024]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"actions": {"act": np.zeros((2, 3), np.int64)}}, r"actions: it has \['act'\]"),
        ({"actions": {"action": np.zeros((2, 3, 1), np.int64)}}, "action: it has shape"),
        ({"actions": act(2, 3), "seeds": np.arange(3)}, "seeds: it has shape"),
        ({"actions": act(2, 3), "context": context(3)}, "observation: the context has shape"),
        ({"actions": act(0, 3)}, "there are no lanes"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, problem):
    with pytest.raises(InvalidInput, match=problem):
        imagine(toy(), **arguments)


def test_a_world_that_takes_no_context_is_not_given_one():
    world = Toy(toy_spec(capabilities=frozenset()))
    with pytest.raises(InvalidInput, match="cannot be started from observations"):
        imagine(world, act(2, 3), context=context(2))
