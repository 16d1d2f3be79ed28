"""The split into training and held-out episodes, and what is in a batch."""

import numpy as np
import pytest
import torch

from simservice.errors import InvalidInput
from simservice.training.loader import Loader, split
from simservice.types import Episode
from simservice.worlds.world import Phase


def episode(number, length, terminated=False, truncated=False):
    """Every row tells its episode and its time: observation 100 * number + t, action and reward t."""
    rows = np.arange(length + 1, dtype=np.float32) + 100 * number
    return Episode(
        observation={"observation": rows[:, None]},
        action={"action": np.arange(length)},
        reward=np.arange(length, dtype=np.float64),
        terminated=terminated,
        truncated=truncated,
    )


EPISODES = [episode(i, length, terminated=i % 2 == 0) for i, length in enumerate([5, 9, 7, 12, 3, 8, 6, 4, 10, 6])]


def phase(**changes):
    fields = dict(name="networks", updates=10, batch_size=64, segment_length=4, learning_rate=1e-3)
    return Phase(**{**fields, **changes})


def steps(episodes):
    return sum(len(one) for one in episodes)


def names(episodes):
    return {int(one.observation["observation"][0, 0]) // 100 for one in episodes}


def test_whole_episodes_are_held_out_and_at_least_a_tenth_of_the_steps():
    training, held_out = split(EPISODES)
    assert names(training) | names(held_out) == set(range(10))
    assert not names(training) & names(held_out)
    assert 7 <= steps(held_out) <= 20


def test_the_split_depends_on_contents_and_not_on_order():
    assert names(split(EPISODES[::-1])[1]) == names(split(EPISODES)[1])


def test_an_episode_keeps_its_side_when_others_are_appended():
    more = [*EPISODES, *(episode(10 + i, 7) for i in range(5))]
    before, after = names(split(EPISODES)[1]), names(split(more)[1])
    assert len(before - after) <= 1


def test_one_long_episode_among_short_ones_is_learned_from():
    _, held_out = split([*EPISODES, episode(20, 500)])
    assert 20 not in names(held_out)


def test_a_single_episode_is_cut_in_time():
    training, held_out = split([episode(3, 50, terminated=True)])
    assert (steps(training), steps(held_out)) == (45, 5)
    assert held_out[0].terminated and not training[0].terminated
    assert training[0].observation["observation"][-1] == held_out[0].observation["observation"][0]


def test_two_of_a_few_long_episodes_are_held_out():
    assert [len(split([episode(i, 500) for i in range(count)])[1]) for count in (2, 7, 8, 10)] == [1, 1, 2, 2]


def test_too_little_data_to_split_is_said():
    with pytest.raises(InvalidInput, match="1 steps cannot be split"):
        split([episode(0, 1)])


def test_segments_are_windows_of_one_episode():
    batch = Loader(EPISODES, seed=0).batch(phase(), 0, 0)
    observation, valid = batch.observation["observation"][:, :, 0], batch.valid
    assert observation.shape == (64, 5) and valid.shape == (64, 4)
    assert valid[:, 0].all() and not valid.all()
    number = (observation // 100).long()
    assert (number == number[:, :1]).all()
    time = observation[:, :-1] - 100 * number[:, :-1]
    assert torch.equal(batch.action["action"][valid].float(), time[valid])
    assert torch.equal(batch.reward[valid], time[valid])
    assert (observation[:, 1:] - observation[:, :-1])[valid].eq(1).all()
    assert (observation[:, 1:] - observation[:, :-1])[~valid].eq(0).all()


def test_only_the_last_step_of_a_terminated_episode_is_terminal():
    batch = Loader(EPISODES, seed=0).batch(phase(batch_size=512), 0, 0)
    lengths = torch.tensor([len(one) for one in EPISODES])
    observation = batch.observation["observation"][:, :-1, 0]
    number = (observation // 100).long()
    last = (observation - 100 * number).long() == lengths[number] - 1
    assert torch.equal(batch.terminated, batch.valid & last & (number % 2 == 0))
    assert batch.terminated.any()


def test_every_segment_opens_with_a_first_frame():
    batch = Loader(EPISODES, seed=0).batch(phase(), 0, 0)
    assert batch.is_first[:, 0].all() and not batch.is_first[:, 1:].any()


def test_a_batch_is_a_function_of_seed_phase_and_update():
    def rows(seed, place, update):
        return Loader(EPISODES, seed).batch(phase(), place, update).observation["observation"]

    loader = Loader(EPISODES, 0)
    for update in range(3):
        loader.batch(phase(), 0, update)
    assert torch.equal(loader.batch(phase(), 0, 7).observation["observation"], rows(0, 0, 7))
    for other in (rows(1, 0, 7), rows(0, 1, 7), rows(0, 0, 8)):
        assert not torch.equal(other, rows(0, 0, 7))


def test_each_group_sees_a_bootstrap_resample_of_its_own():
    loader = Loader(EPISODES, seed=0)
    seen = [set(), set()]
    for update in range(200):
        batch = loader.batch(phase(groups=2, segment_length=1), 0, update)
        rows = batch.observation["observation"][:, 0, 0].view(2, 32)
        for group in range(2):
            seen[group] |= set(rows[group].tolist())
    total = steps(EPISODES)
    assert all(0.45 * total < len(rows) < 0.8 * total for rows in seen)  # 63 % of the steps on average
    assert seen[0] != seen[1]
