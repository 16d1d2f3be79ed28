"""Small policies act in every space of a fixed shape, and a batch of them acts as each would alone."""

import numpy as np
import pytest
from gymnasium import spaces

from simservice.data.policies import stack_values, take_value
from simservice.monitor.evaluation.linear_policies import LinearPolicies, side_by_side
from simservice.types import Episode, to_leaves

OBSERVATION = spaces.Box(-1.0, 1.0, (5,), np.float32)
EYES = spaces.Box(0, 255, (24, 20, 3), np.uint8)


def episodes(space, count=3, length=20):
    space.seed(1)
    made = []
    for _ in range(count):
        rows = stack_values(space, [space.sample() for _ in range(length + 1)])
        leaves = to_leaves(space, rows, "observation")
        made.append(Episode(leaves, {"action": np.zeros(length)}, np.zeros(length), True, False))
    return made


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=2),
        spaces.Box(-2.0, 2.0, (2, 2), np.float32),
        spaces.Box(-np.inf, np.inf, (1,), np.float32),
        spaces.MultiDiscrete([2, 5]),
        spaces.MultiBinary(4),
        spaces.Dict({"go": spaces.Discrete(2), "turn": spaces.Box(-1.0, 1.0, (1,), np.float32)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("observation", [OBSERVATION, EYES], ids=["vector", "picture"])
def test_every_action_lies_in_the_space_and_actions_differ(observation, space):
    small = LinearPolicies.fitted(observation, space, episodes(observation))
    seen = stack_values(observation, [observation.sample() for _ in range(30)])
    said = set()
    for seed in range(3):
        actions = small.policy(small.draw(seed))(seen)
        taken = [take_value(space, actions, lane) for lane in range(30)]
        assert all(space.contains(action) for action in taken)
        said |= {str(action) for action in taken}
    assert len(said) > 1


def test_one_policy_a_lane_acts_as_each_alone():
    space = spaces.Discrete(4)
    small = LinearPolicies.fitted(OBSERVATION, space, episodes(OBSERVATION))
    several = np.stack([small.draw(seed) for seed in range(6)])
    seen = stack_values(OBSERVATION, [OBSERVATION.sample() for _ in range(6)])
    alone = [small.policy(several[lane])(seen[lane : lane + 1])[0] for lane in range(6)]
    assert small.policy(several)(seen).tolist() == alone


def test_policies_side_by_side_keep_to_their_lanes():
    space = spaces.Discrete(4)
    made = [(lambda observation, n=n: np.full(len(observation), n), n) for n in (1, 2, 3)]
    acted = side_by_side(made, OBSERVATION, space)(np.zeros((6, 5), np.float32))
    assert acted.tolist() == [1, 2, 2, 3, 3, 3]
