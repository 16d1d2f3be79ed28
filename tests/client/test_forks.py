"""Forks, saves and restores as a user has them: environments that begin where others are, and ways back."""

import gymnasium as gym
import numpy as np
import pytest

import simservice.client  # noqa: F401  (registers the environment)
from simservice.client.session import RemoteSession
from simservice.errors import InvalidInput, PointsExhausted, SessionClosed, UnknownPoint
from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.wiring import ReplicaConfig
from simservice.sessions.settings import SessionConfig

LANES = 4


@pytest.fixture(scope="module")
def narrow(save_toy):
    """A world whose sessions may keep two points."""
    config = LocalConfig(grace_s=0.1, replica=ReplicaConfig(sessions=SessionConfig(max_points=2)))
    with LocalServer([save_toy("narrow", noise=0.05, growth=0.95)], store_url="memory:", config=config) as server:
        yield server.address


@pytest.fixture
def envs(worlds):
    made = gym.make_vec(
        "simservice/World-v0", num_envs=LANES, vectorization_mode="vector_entry_point", address=worlds, world="lucky"
    )
    made.reset(seed=3)
    yield made
    made.close()


def actions(count, lanes, seed=0):
    return np.random.default_rng(seed).integers(0, 3, (count, lanes))


def test_a_fork_with_the_same_luck_and_actions_gives_the_parents_bits(envs):
    for action in actions(5, LANES):
        envs.step(action)
    child = envs.fork([2, 0], copies=3)
    assert (child.num_envs, child.single_action_space) == (6, envs.single_action_space)
    for action in actions(60, LANES, 1):
        ours, theirs = envs.step(action), child.step(action[[2, 2, 2, 0, 0, 0]])
        for mine, yours in zip(ours[:4], theirs[:4], strict=True):
            assert yours.tobytes() == np.repeat(mine[[2, 0]], 3, axis=0).tobytes()
    envs.close()
    child.step(np.zeros(6, np.int64))
    child.reset(seed=1)
    child.close()
    assert child.closed


def test_a_fork_with_fresh_luck_sees_other_futures_and_its_seeds_repeat_them(envs):
    first, second, third = (envs.fork([1], copies=8, luck="fresh", seeds=seeds) for seeds in (range(8), range(8), None))
    seen = [[child.step(action)[0] for action in actions(10, 8)] for child in (first, second, third)]
    assert np.array_equal(seen[0], seen[1])
    assert (seen[0][-1] != seen[2][-1]).any()
    assert len(np.unique(seen[0][-1], axis=0)) == 8
    for child in (first, second, third):
        child.close()


def test_a_restored_environment_shows_what_it_showed_and_goes_the_same_way(envs):
    for action in actions(5, LANES):
        before = envs.step(action)[0]
    point = envs.save()
    once = [envs.step(action)[:4] for action in actions(60, LANES, 1)]
    for _ in range(2):
        shown, infos = envs.restore(point)
        assert shown.tobytes() == before.tobytes()
        assert infos == {}
        again = [envs.step(action)[:4] for action in actions(60, LANES, 1)]
        assert all(np.array_equal(a, b) for x, y in zip(once, again, strict=True) for a, b in zip(x, y, strict=True))
    envs.forget(point)
    with pytest.raises(UnknownPoint, match=f"no point {point} "):
        envs.restore(point)


def test_a_single_environment_goes_back_as_well(worlds):
    env = gym.make("simservice/World-v0", address=worlds, world="lucky")
    env.reset(seed=3)
    point = env.unwrapped.save()
    once = [env.step(action)[0] for action in (0, 1, 2)]
    env.unwrapped.restore(point)
    assert np.array_equal(once, [env.step(action)[0] for action in (0, 1, 2)])
    env.unwrapped.forget(point)
    env.close()


def test_the_limit_of_points_is_in_the_contract_and_in_the_error(narrow):
    session = RemoteSession(narrow, "narrow", num_envs=LANES)
    limits = session.contract.limits
    assert (limits.max_points, limits.snapshot_lane_bytes > limits.lane_bytes > 0) == (2, True)
    session.reset()
    points = [session.save(), session.save()]
    with pytest.raises(PointsExhausted, match="may keep 2 saved points"):
        session.save()
    session.forget(*points)
    session.restore(session.save())
    session.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lanes": [LANES]}, "lanes: must be some of 0 to 3"),
        ({"lanes": []}, "lanes: names no lane"),
        ({"lanes": [1, 1]}, "lanes: a lane is named twice"),
        ({"lanes": [0.5]}, "lanes: 0.5 is no integer"),
        ({"lanes": np.array([True, False, True, False])}, "lanes: .*True.* is no integer"),
        ({"lanes": [[0], [1, 2]]}, "lanes"),
        ({"copies": 2.5}, "copies: 2.5 is no integer"),
        ({"copies": True}, "copies: True is no integer"),
        ({"seeds": [0.5] * LANES, "luck": "fresh"}, "seeds: 0.5 is no integer"),
        ({"seeds": [None] * LANES, "luck": "fresh"}, "seeds: None is no integer"),
        ({"seeds": [2**64] * LANES, "luck": "fresh"}, "seeds: 18446744073709551616 is no integer"),
        ({"copies": 0}, "copies: 0 copies of 4 lanes"),
        ({"copies": -1}, "copies"),
        ({"copies": 100_000}, "copies: 100000 copies"),
        ({"luck": "bad"}, "luck: 'bad' is none; there are: same, fresh"),
        ({"seeds": [1, 2, 3, 4]}, "seeds: with fresh luck"),
        ({"seeds": [1, 2], "luck": "fresh"}, "seeds: with fresh luck, 4 integers"),
    ],
)
def test_a_fork_that_makes_no_sense_is_refused_in_words_and_nothing_is_forked(envs, arguments, words):
    with pytest.raises(InvalidInput, match=words):
        envs.fork(**arguments)
    envs.step(np.zeros(LANES, np.int64))


def test_a_fork_takes_the_integers_of_numpy(envs):
    child = envs.fork(np.array([2, 0]), np.int64(2), luck="fresh", seeds=np.arange(4))
    assert child.num_envs == 4
    child.close()


def test_what_cannot_be_a_point_is_refused_in_words(envs):
    for none in (1.5, "x", None, True):
        for call in (envs.restore, envs.forget):
            with pytest.raises(InvalidInput, match=r"point: .* is no point"):
                call(none)
    for unknown in (-1, 2**64):
        envs.forget(unknown)
        with pytest.raises(UnknownPoint):
            envs.restore(unknown)


def test_a_closed_environment_neither_forks_nor_saves(envs):
    envs.close()
    for call in (envs.fork, envs.save, lambda: envs.restore(1), lambda: envs.forget(1)):
        with pytest.raises(SessionClosed):
            call()
