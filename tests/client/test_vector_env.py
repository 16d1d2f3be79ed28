"""A served vector environment behaves as Gymnasium's own SyncVectorEnv over the same environments."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import simservice.client  # noqa: F401  (registers the environment)
from simservice.errors import CapacityExhausted, InvalidInput, NeedsReset, SessionClosed, SimserviceError

LANES, LIMIT, BOUND = 3, 12, 1.2


@pytest.fixture
def make(worlds):
    made = []

    def make(world="brief", num_envs=LANES, mode="vector_entry_point", **arguments):
        made.append(
            gym.make_vec(
                "simservice/World-v0",
                num_envs=num_envs,
                vectorization_mode=mode,
                address=worlds,
                world=world,
                **arguments,
            )
        )
        return made[-1]

    yield make
    for env in made:
        env.close()


class LocalToy(gym.Env):
    """The toy world "brief" in this process; its episodes begin where `starts` says."""

    observation_space = spaces.Box(-10, 10, (4,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, starts):
        self.starts = iter(starts)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.steps = np.float64(next(self.starts)), 0
        return self.x.astype(np.float32), {"trust_horizon": 7}

    def step(self, action):
        self.x = self.x * 1.05 + 0.1 * (action - 1)
        self.steps += 1
        terminated = bool((abs(self.x) > BOUND).any())
        info = {"uncertainty": np.float32(0)}
        return self.x.astype(np.float32), self.x.sum(), terminated, self.steps >= LIMIT, info


def play(env, actions, mode):
    """Everything a run gives, by name; with DISABLED ended lanes are reset by mask."""
    observation, infos = env.reset(seed=4)
    seen = [{"observation": observation, "infos": infos}]
    for action in actions:
        observation, reward, terminated, truncated, infos = env.step(action)
        seen.append(
            {
                "observation": observation,
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
                "infos": infos,
            }
        )
        if mode is AutoresetMode.DISABLED and (terminated | truncated).any():
            observation, infos = env.reset(options={"reset_mask": terminated | truncated})
            seen.append({"observation": observation, "infos": infos})
    return seen


def starts_of(seen):
    """Where each lane's episodes began, in order."""
    starts = [[] for _ in range(LANES)]
    for step in seen:
        began = step["infos"].get("_trust_horizon", np.zeros(LANES, bool))
        for lane in np.flatnonzero(began):
            starts[lane].append(step["observation"][lane])
    return starts


def assert_equal(found, expected, path=""):
    assert type(found) is type(expected), path
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected:
            assert_equal(found[key], expected[key], f"{path}/{key}")
    elif expected.dtype == object:
        for one, other in zip(found, expected, strict=True):
            assert (one is None and other is None) or np.allclose(one, other, atol=1e-6), path
    else:
        assert found.shape == expected.shape, path
        assert found.dtype == expected.dtype, path
        assert np.allclose(found, expected, atol=1e-6), path


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_run_is_the_one_that_gymnasium_makes_of_local_environments(make, mode):
    actions = np.random.default_rng(0).integers(0, 3, (60, LANES))
    actions[:, 0] = 2  # this lane runs away and terminates, the others reach the time limit
    env = make(autoreset_mode=mode)
    found = play(env, actions, mode)
    assert env.metadata["autoreset_mode"] is mode
    local = SyncVectorEnv([lambda starts=starts: LocalToy(starts) for starts in starts_of(found)], autoreset_mode=mode)
    expected = play(local, actions, mode)
    assert any(step["terminated"].any() for step in expected if "reward" in step)
    assert any(step["truncated"].any() for step in expected if "reward" in step)
    assert len(found) == len(expected)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert_equal(one, other, f"step {number}")


def test_a_seeded_lane_does_not_know_its_neighbours(make):
    many, one = make("lucky"), make("lucky", num_envs=1)
    together = many.reset(seed=[3, 8, 9])[0][1]
    alone = one.reset(seed=8)[0][0]
    assert np.array_equal(together, alone)
    for action in (0, 2, 1, 2):
        assert np.array_equal(many.step(np.array([1, action, 2]))[0][1], one.step(np.array([action]))[0][0])


def test_an_int_seeds_the_lanes_one_after_the_other(make):
    env = make()
    assert np.array_equal(env.reset(seed=5)[0], env.reset(seed=[5, 6, 7])[0])
    assert np.array_equal(env.reset(seed=np.int64(5))[0], env.reset(seed=(5, 6, 7))[0])


def test_lanes_without_a_seed_stay_unseeded(make):
    one, other = make(), make()
    first, second = one.reset(seed=[5, None, 7])[0], other.reset(seed=[5, None, 7])[0]
    assert (first == second).all(axis=1).tolist() == [True, False, True]
    assert not np.array_equal(one.reset()[0], other.reset()[0])


def test_lanes_outside_the_mask_go_on_untouched(make):
    env = make("lucky", autoreset_mode="disabled")
    env.reset(seed=0)
    before = env.step(np.array([1, 1, 1]))[0]
    mask = np.array([False, True, False])
    options = {"reset_mask": mask}
    after, _ = env.reset(seed=[None, 9, None], options=options)
    assert np.array_equal(after[~mask], before[~mask])
    assert not np.array_equal(after[mask], before[mask])
    assert options == {"reset_mask": mask}


def test_what_was_returned_never_changes_later(make):
    env = make(autoreset_mode=AutoresetMode.SAME_STEP)
    kept = [env.reset(seed=0)[0]]
    copies = [kept[0].copy()]
    for _ in range(2 * LIMIT):
        observation, reward, terminated, truncated, infos = env.step(np.array([0, 1, 2]))
        for array in (observation, reward, terminated, truncated, infos.get("final_obs")):
            if array is not None:
                kept.append(array)
                copies.append(array.copy())
    for array, copy in zip(kept, copies, strict=True):
        assert_equal(array, copy)
        assert array.flags.writeable


def test_the_spaces_are_the_batched_ones(make):
    env = make("push")
    assert env.single_action_space == spaces.Box(-1, 1, (2,), np.float32)
    assert env.action_space == spaces.Box(-1, 1, (LANES, 2), np.float32)
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert env.step(env.action_space.sample())[0] in env.observation_space


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ([0, 1], r"shape \(2,\) was given, \(3,\) is expected"),
        ([0, 1, 3], r"action: 3 \(lane 2\) lies outside Discrete"),
        ([0.0, 1.0, 2.0], "dtype float64"),
    ],
)
def test_what_is_no_action_is_refused_in_words_and_nothing_is_stepped(make, action, words):
    env = make()
    first, _ = env.reset(seed=0)
    with pytest.raises(InvalidInput, match=words):
        env.step(np.array(action))
    assert np.allclose(env.step(np.array([1, 1, 1]))[0], 1.05 * first, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": [1, 2]}, "2 seeds were given for 3 environments"),
        ({"seed": [-1, 2, 3]}, "-1 is no seed"),
        ({"options": {"reset_mask": [True, False, True]}}, "reset_mask: a numpy array"),
        ({"options": {"reset_mask": np.ones(2, bool)}}, "reset_mask: a numpy array of 3"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, "reset_mask: it names no environment"),
        ({"options": {"context": {"observation": np.zeros((2, 1, 4))}}}, "observation: .* expected"),
    ],
)
def test_a_reset_that_makes_no_sense_is_refused(make, arguments, words):
    with pytest.raises(InvalidInput, match=words):
        make().reset(**arguments)


def test_lanes_may_start_in_real_observations(make):
    env = make()
    real = np.arange(12, dtype=np.float32).reshape(LANES, 1, 4) / 10
    assert np.array_equal(env.reset(options={"context": {"observation": real}})[0], real[:, 0])


def test_a_lane_that_was_never_reset_is_named(make):
    with pytest.raises(NeedsReset, match=r"0, 1, 2"):
        make().step(np.array([1, 1, 1]))


def test_pictures_come_one_a_lane(make):
    env = make("steady", render_mode="rgb_array")
    env.reset(seed=0)
    frames = env.render()
    assert isinstance(frames, tuple) and [frame.shape for frame in frames] == [(2, 2, 3)] * LANES
    assert make("steady").render() is None


def test_closing_twice_is_fine_and_a_closed_environment_says_so(make):
    env = make()
    env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(SessionClosed, match="make the environment again"):
        env.step(np.array([1, 1, 1]))


def test_more_lanes_than_there_are_is_told_with_numbers(make):
    with pytest.raises(SimserviceError, match="100000") as caught:
        make(num_envs=100_000)
    assert isinstance(caught.value, CapacityExhausted | InvalidInput)


def test_a_mode_may_be_named_and_an_unknown_one_is_refused(make):
    assert make(autoreset_mode="SameStep").metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    with pytest.raises(InvalidInput, match="'never' is none; there are: next_step, same_step, disabled"):
        make(autoreset_mode="never")


def test_gymnasium_may_make_the_vector_out_of_single_environments(make):
    ours, theirs = make("lucky"), make("lucky", mode="sync")
    assert np.array_equal(ours.reset(seed=2)[0], theirs.reset(seed=2)[0])
    for _ in range(5):
        action = ours.action_space.sample()
        assert np.array_equal(ours.step(action)[0], theirs.step(action)[0])


def test_vector_wrappers_of_gymnasium_work(make):
    env = gym.wrappers.vector.DictInfoToList(gym.wrappers.vector.RecordEpisodeStatistics(make()))
    env.reset(seed=0)
    for _ in range(LIMIT):
        *_, infos = env.step(np.array([1, 1, 1]))
    assert [info["episode"]["l"] for info in infos] == [LIMIT] * LANES


# ---- caution ---------------------------------------------------------------------------------------------------------


def test_a_cautious_environment_is_truncated_at_the_trust_horizon(make):
    env = make(truncate_at_trust_horizon=True, max_uncertainty=0.5, autoreset_mode="same_step")
    _, infos = env.reset(seed=1)
    assert (infos["trust_horizon"] == 7).all()
    for step in range(1, 8):
        _, _, _, truncated, infos = env.step(np.ones(LANES, np.int64))
        assert truncated.all() == (step == 7)
    assert infos["final_info"]["distrusted"].all()


def test_a_single_environment_can_be_cautious_too(worlds):
    with gym.make("simservice/World-v0", address=worlds, world="brief", truncate_at_trust_horizon=True) as env:
        env.reset(seed=1)
        ends = [env.step(1)[3] for _ in range(7)]
        assert ends == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("caution", "words"),
    [
        ({"truncate_at_trust_horizon": "no"}, "truncate_at_trust_horizon: 'no' is neither True nor False"),
        ({"uncertainty_penalty": None}, "uncertainty_penalty: None is no number"),
        ({"truncate_at_trust_horizon": True}, "truncate_at_trust_horizon: world steady@.* has no trust horizon"),
        ({"max_uncertainty": -1}, "max_uncertainty: -1.0 is not above 0"),
        ({"max_uncertainty": "much"}, "max_uncertainty: 'much' is no number"),
        ({"uncertainty_penalty": np.nan}, "uncertainty_penalty: nan is no finite number"),
    ],
)
def test_a_caution_that_a_world_cannot_keep_is_refused_and_leaves_no_session(make, caution, words):
    with pytest.raises(InvalidInput, match=words):
        make("steady", **caution)
