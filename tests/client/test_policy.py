"""A policy file acts as the policy it was saved from, and a broken one is refused in words."""

from itertools import pairwise

import numpy as np
import pytest
from gymnasium import spaces

from simservice.client.policy import Policy, check_spaces, load_policy
from simservice.errors import InvalidInput


def network(*sizes, seed=0):
    generator = np.random.default_rng(seed)
    return tuple(
        (generator.normal(size=(out, into)).astype(np.float32), generator.normal(size=out).astype(np.float32))
        for into, out in pairwise(sizes)
    )


@pytest.fixture(params=["discrete", "box", "half bounded"])
def policy(request):
    if request.param == "discrete":
        return Policy(network(4, 8, 3), spaces.Discrete(3, start=5, dtype=np.int32), "relu")
    low, high = np.float32([-2, 0]), np.float32([2, 10])
    if request.param == "half bounded":
        high = np.float32([2, np.inf])
    return Policy(network(4, 8, 8, 4), spaces.Box(low, high, dtype=np.float32))


def test_a_saved_policy_acts_as_before(policy, tmp_path):
    loaded = load_policy(policy.save(tmp_path / "new" / "policy.npz"))
    observation = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    assert loaded.action_space == policy.action_space
    np.testing.assert_array_equal(loaded.greedy()(observation), policy.greedy()(observation))
    np.testing.assert_array_equal(loaded.sampled(3)(observation), policy.sampled(3)(observation))


def test_every_action_lies_in_the_action_space(policy):
    observation = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32) * 100
    for act in (policy.greedy(), policy.sampled(0)):
        actions = act(observation)
        assert actions.dtype == policy.action_space.dtype
        assert all(policy.action_space.contains(action) for action in actions)


def test_sampled_actions_follow_the_softmax():
    logits = np.log(np.float32([0.2, 0.5, 0.3]))
    policy = Policy(((np.zeros((3, 1), np.float32), logits),), spaces.Discrete(3))
    drawn = policy.sampled(0)(np.zeros((20_000, 1), np.float32))
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), [0.2, 0.5, 0.3], atol=0.015)


def test_an_observation_of_the_wrong_size_is_named(policy):
    with pytest.raises(InvalidInput, match="has 3 numbers a lane; this policy reads 4"):
        policy.greedy()(np.zeros((2, 3), np.float32))


def test_missing_damaged_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="there is no file"):
        load_policy(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InvalidInput, match="is not a policy file"):
        load_policy(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(InvalidInput, match="is not a policy file"):
        load_policy(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", head=np.array([{"evil": 1}], dtype=object))
    with pytest.raises(InvalidInput, match="is not a policy file"):
        load_policy(tmp_path / "pickled.npz")


def test_spaces_a_plain_policy_cannot_act_between_are_named():
    box, text = spaces.Box(-1, 1, (2,)), spaces.Text(3)
    with pytest.raises(InvalidInput, match="observation space: is a Text"):
        check_spaces(text, box)
    with pytest.raises(InvalidInput, match="action space: is a Text"):
        check_spaces(box, text)
