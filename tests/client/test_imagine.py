"""Rollouts as a user has them: many steps in one call, what if or for good, with Gymnasium's words."""

import threading
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from pilots import linear_model
from relay import Relay
from toy import toy_spec

import simservice.client  # noqa: F401  (registers the environment)
from simservice.client.policies import put_policy
from simservice.client.trajectories import as_trajectories
from simservice.errors import (
    DeadlineExceeded,
    InvalidInput,
    NeedsReset,
    RolloutLimitExceeded,
    SessionClosed,
    UnknownPolicy,
)
from simservice.types import Imagined, PolicyUse

LANES, STEPS = 5, 30


@pytest.fixture
def make(worlds):
    """Makes environments of a world, which are closed afterwards."""
    made = []

    def envs(world="brief", mode="next_step", address=worlds, seed=3, lanes=LANES, **settings):
        env = gym.make_vec(
            "simservice/World-v0",
            num_envs=lanes,
            vectorization_mode="vector_entry_point",
            address=address,
            world=world,
            autoreset_mode=mode,
            **settings,
        )
        made.append(env)
        env.reset(seed=seed)
        return env

    yield envs
    for env in made:
        env.close()


@pytest.fixture(scope="module")
def policy(worlds):
    """The hash of a policy that each world knows."""
    for world in ("brief", "lucky"):
        receipt = put_policy(worlds, world, model=linear_model(), distribution="categorical")
    return receipt.content_hash


def script(steps=STEPS, lanes=LANES, seed=0):
    return np.random.default_rng(seed).integers(0, 3, (steps, lanes))


def stepped(env, actions):
    """Observations, rewards and ends of the same actions, one by one."""
    return [np.stack(column) for column in zip(*(env.step(action)[:4] for action in actions), strict=True)]


def assert_same(imagined, expected):
    found = (imagined.observation, imagined.reward, imagined.terminated, imagined.truncated)
    for array, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, other)
        assert (array.dtype, array.flags.writeable) == (other.dtype, True)


# ---- for good --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", ["brief", "lucky"])
@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_an_advancing_rollout_gives_the_bits_of_its_steps_one_by_one(make, world, mode):
    first, second = make(world, mode), make(world, mode)
    for seed in range(3):
        imagined = first.imagine(script(seed=seed), advance=True)
        assert len(imagined) == STEPS and imagined.action is None
        assert_same(imagined, stepped(second, script(seed=seed)))
    assert_same(first.imagine(script(1), advance=True), stepped(second, script(1)))


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_an_uploaded_policys_rollout_gives_the_bits_of_stepping_with_its_actions(make, policy, mode):
    first, second = make("brief", mode), make("brief", mode)
    imagined = first.imagine(policy=policy, steps=STEPS, advance=True)
    assert_same(imagined, stepped(second, imagined.action))
    logits = imagined.outputs["action_dist_inputs"]
    shifted = logits - logits.max(-1, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    chosen = np.take_along_axis(expected, imagined.action[..., None], -1)[..., 0]
    np.testing.assert_allclose(imagined.log_probability, chosen, atol=1e-5)
    np.testing.assert_allclose(imagined.outputs["value"], logits.sum(-1), rtol=1e-4, atol=1e-5)
    assert len(np.unique(imagined.action)) == 3


def test_last_observations_of_episodes_come_in_the_order_of_their_ends(make):
    first, second = make("brief", "same_step"), make("brief", "same_step")
    imagined = first.imagine(script(), advance=True)
    rows = []
    for number, action in enumerate(script()):
        infos = second.step(action)[4]
        ended = infos.get("_final_obs", np.zeros(LANES, bool))
        np.testing.assert_array_equal(imagined.final[number], ended)
        rows += [infos["final_obs"][lane] for lane in np.flatnonzero(ended)]
    assert len(rows) > LANES
    np.testing.assert_array_equal(imagined.final_observation, np.stack(rows))


def test_steps_that_began_an_episode_are_told(make):
    env = make("brief", "next_step")
    imagined = env.imagine(script(), advance=True)
    over = imagined.terminated | imagined.truncated
    np.testing.assert_array_equal(imagined.began[1:], over[:-1])
    assert not imagined.reward[imagined.began].any()
    assert imagined.stopped is None and imagined.final is None


# ---- what if ---------------------------------------------------------------------------------------------------------


def test_what_if_changes_nothing(make, policy):
    first, second = make("lucky"), make("lucky")
    futures = first.imagine(script(12, 2 * 64), lanes=[3, 1], copies=64, observation=False)
    assert futures.reward.shape == (12, 128) and futures.observation is None
    first.imagine(policy=policy, steps=50)
    first.imagine(policy=policy, steps=50, copies=4, luck="fresh")
    for action in script(5):
        np.testing.assert_array_equal(first.step(action)[0], second.step(action)[0])


def test_a_planner_finds_what_a_copy_then_does(make):
    """The best of many scripts is played for good, and earns what it promised."""
    env = make("lucky", lanes=1)
    scripts = script(10, 256)
    returns = env.imagine(scripts, copies=256, observation=False).reward.sum(axis=0)
    best = int(returns.argmax())
    earned = sum(env.step(action)[1][0] for action in scripts[:, best : best + 1])
    assert earned == pytest.approx(returns[best], abs=1e-9)
    assert returns[best] > np.median(returns)


def test_lanes_of_given_actions_stop_at_their_ends_unless_the_user_says_otherwise(make):
    env = make("brief")
    stopped = env.imagine(script()).stopped
    assert stopped[-1].all() and not stopped[0].any()
    assert env.imagine(script(), stop_at_end=False).stopped is None


def test_a_policy_is_greedy_where_that_is_asked_for(make, policy):
    env = make("lucky")
    sure = env.imagine(policy=PolicyUse(content_hash=policy, greedy=True), steps=9)
    np.testing.assert_array_equal(sure.action, sure.outputs["action_dist_inputs"].argmax(-1))


def test_values_have_the_forms_of_their_spaces():
    space = spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Discrete(3)})
    spec = toy_spec(observation_space=space, action_space=spaces.Tuple((spaces.Discrete(2),)))
    leaves = {"observation/a": np.zeros((7, 4, 2), np.float32), "observation/b": np.ones((7, 4), np.int64)}
    flags = np.zeros((7, 4), bool)
    imagined = Imagined(reward=np.zeros((7, 4)), terminated=flags, truncated=flags, observation=leaves)
    imagined = replace(imagined, action={"action/0": np.ones((7, 4), np.int64)})
    found = as_trajectories(spec, imagined)
    assert found.observation["a"].shape == (7, 4, 2) and found.observation["b"].shape == (7, 4)
    assert isinstance(found.action, tuple) and found.action[0].shape == (7, 4)
    assert found.start is None and found.outputs == {}


# ---- connections -----------------------------------------------------------------------------------------------------


def test_a_long_answer_travels_in_parts(make, policy):
    env = make("lucky", lanes=64)
    parts = []
    hear = env.session._hear
    env.session._hear = lambda part: (parts.append(part.ByteSize()), hear(part))
    imagined = env.imagine(policy=policy, steps=1000, copies=4)
    assert len(parts) > 10 and max(parts) < 2 * 2**20 and sum(parts) > 10 * 2**20
    np.testing.assert_array_equal(imagined.reward[:, ::4], imagined.reward[:, 1::4])


def test_a_connection_that_is_cut_in_mid_rollout_changes_nothing(worlds, make, policy):
    with Relay(worlds) as relay:
        mine, undisturbed = make("lucky", address=relay.address, lanes=64), make("lucky", lanes=64)
        hear = mine.session._hear
        cuts = iter([1, 3, 2])

        def cutting(part):
            if len(mine.session._parts) == next_cut[0]:
                next_cut[0] = next(cuts, -1)
                relay.cut()
            hear(part)

        next_cut = [next(cuts)]
        mine.session._hear = cutting
        for _ in range(2):
            ours, theirs = (env.imagine(policy=policy, steps=1500, advance=True) for env in (mine, undisturbed))
            np.testing.assert_array_equal(ours.reward, theirs.reward)
            np.testing.assert_array_equal(ours.observation, theirs.observation)
        assert mine.session.reconnects == 3
        assert mine.session.sequence == undisturbed.session.sequence == 3


def test_a_rollout_that_was_interrupted_is_finished_before_the_next_request(make, policy, monkeypatch):
    mine, undisturbed = make("lucky"), make("lucky")
    hear = mine.session._hear

    def interrupted(part):
        monkeypatch.setattr(mine.session, "_hear", hear)
        raise KeyboardInterrupt

    monkeypatch.setattr(mine.session, "_hear", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine.imagine(policy=policy, steps=20, advance=True)
    undisturbed.imagine(policy=policy, steps=20, advance=True)
    for action in script(3):
        np.testing.assert_array_equal(mine.step(action)[0], undisturbed.step(action)[0])


def test_others_step_while_a_rollout_goes_on(make, policy):
    rolling, stepping = make("lucky", lanes=64), make("lucky")
    over = threading.Event()

    def roll():
        rolling.imagine(policy=policy, steps=1500, observation=False)
        over.set()

    thread = threading.Thread(target=roll)
    thread.start()
    steps = 0
    while not over.is_set():
        stepping.step(script(1)[0])
        steps += 1
    thread.join()
    assert steps > 20


# ---- what cannot be --------------------------------------------------------------------------------------------------


def test_what_cannot_be_meant_is_refused_and_the_session_goes_on(make, policy):
    env, twin = make("lucky"), make("lucky")
    for error, match, arguments in (
        (InvalidInput, "either actions", {}),
        (InvalidInput, "either actions", {"actions": script(), "policy": policy}),
        (InvalidInput, "steps", {"policy": policy}),
        (InvalidInput, "rows", {"actions": script(), "steps": 3}),
        (InvalidInput, "shape", {"actions": script(lanes=4)}),
        (InvalidInput, "outside|lies", {"actions": np.full((3, LANES), 7)}),
        (InvalidInput, "lanes", {"actions": script(), "lanes": np.arange(LANES), "advance": True}),
        (InvalidInput, "luck", {"actions": script(), "luck": "good"}),
        (InvalidInput, "lanes", {"actions": script(lanes=1), "lanes": [9]}),
        (InvalidInput, "content_hash", {"policy": "mine", "steps": 3}),
        (UnknownPolicy, "0000", {"policy": "0" * 64, "steps": 3, "advance": True}),
        (InvalidInput, "epsilon", {"policy": PolicyUse(content_hash=policy, epsilon=float("nan")), "steps": 3}),
        (RolloutLimitExceeded, "4096 steps, 5000", {"policy": policy, "steps": 5000}),
        (RolloutLimitExceeded, "16384 lanes, 25000", {"policy": policy, "steps": 50, "copies": 5000}),
        (DeadlineExceeded, "had not ended", {"policy": policy, "steps": 4000, "deadline_s": 0.001}),
    ):
        with pytest.raises(error, match=match):
            env.imagine(**arguments)
    for action in script(3):
        np.testing.assert_array_equal(env.step(action)[0], twin.step(action)[0])
    assert env.session.reconnects == 0


def test_environments_that_were_not_reset_or_are_closed_do_not_imagine(worlds, policy):
    env = gym.make_vec(
        "simservice/World-v0", num_envs=2, vectorization_mode="vector_entry_point", address=worlds, world="lucky"
    )
    with pytest.raises(NeedsReset, match="0, 1"):
        env.imagine(policy=policy, steps=3)
    env.close()
    with pytest.raises(SessionClosed):
        env.imagine(policy=policy, steps=3)
