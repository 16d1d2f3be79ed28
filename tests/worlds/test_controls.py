"""The two controls of vectors: what they predict from data whose answer is known."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from simservice.errors import InvalidInput
from simservice.types import Episode, WorldSpec
from simservice.worlds import registry

BOX = spaces.Box(-np.inf, np.inf, (2,), np.float32)
MATRIX = np.array([[0.9, 0.1], [-0.2, 0.95]])
PUSH = np.array([[0.0, 0.0], [0.3, -0.1], [-0.2, 0.4]])
BOUND = 1.2


def made(family, observation_space=BOX, action_space=None, **overrides):
    spec = WorldSpec(
        name="known",
        version="",
        family=family,
        observation_space=observation_space,
        action_space=action_space or spaces.Discrete(3, start=1),
    )
    return registry.create(family, spec, overrides)


def linear_episodes(count=60, length=40, seed=0, bound=BOUND):
    """x' = M x + p[a], reward 2 x'0 - x'1 + 1, terminated where |x'0| is above the bound."""
    chance = np.random.default_rng(seed)
    episodes = []
    for _ in range(count):
        rows, acts = [chance.normal(0, 0.5, 2)], []
        while len(acts) < length and (not acts or abs(rows[-1][0]) <= bound):
            acts.append(chance.integers(3))
            rows.append(MATRIX @ rows[-1] + PUSH[acts[-1]])
        seen = np.array(rows, np.float32)
        reward = (2 * seen[1:, 0] - seen[1:, 1] + 1).astype(np.float64)
        ended = bool(abs(seen[-1, 0]) > bound)
        episodes.append(
            Episode({"observation": seen}, {"action": np.array(acts) + 1}, reward, ended, not ended and len(acts) == 40)
        )
    return episodes


def steps_of(episodes):
    seen = [e.observation["observation"] for e in episodes]
    return (
        torch.from_numpy(np.concatenate([rows[:-1] for rows in seen])),
        torch.from_numpy(np.concatenate([e.action["action"] for e in episodes])),
        torch.from_numpy(np.concatenate([rows[1:] for rows in seen])),
        torch.from_numpy(np.concatenate([e.reward for e in episodes])),
    )


def stepped(world, now, acted):
    first = torch.ones(len(now), dtype=torch.bool)
    state = world.observe(world.allocate(len(now)), {"observation": now}, {"action": acted}, first, {})
    state, out = world.step(state, {"action": acted}, {"termination": torch.full((len(now),), 0.5)})
    return world.emit(state)["observation"], out


def test_linear_learns_a_linear_step_its_reward_and_its_end():
    world = made("linear")
    world.prepare(linear_episodes())
    now, acted, then, reward = steps_of(linear_episodes(seed=1))
    predicted, out = stepped(world, now, acted)
    assert (predicted - then).abs().max() < 1e-3
    assert (out.reward - reward).abs().max() < 1e-2
    ends = then[:, 0].abs() > BOUND
    clear = (then[:, 0].abs() - BOUND).abs() > 0.1
    assert ends.any() and (out.terminated == ends)[clear].all()


def test_linears_uncertainty_grows_outside_its_data():
    world = made("linear")
    world.prepare(linear_episodes())
    near, far = torch.zeros(16, 2), torch.full((16, 2), 30.0)
    acted = torch.ones(16, dtype=torch.int64)
    assert (stepped(world, far, acted)[1].uncertainty > 1.2 * stepped(world, near, acted)[1].uncertainty).all()


def test_linear_never_goes_far_outside_its_data_and_says_when_it_was_held_back():
    world = made("linear", range_factor=1.5)
    data = linear_episodes()
    world.prepare(data)
    seen = np.concatenate([e.observation["observation"] for e in data])
    middle, half = (seen.max(0) + seen.min(0)) / 2, (seen.max(0) - seen.min(0)) / 2
    predicted, out = stepped(world, torch.full((16, 2), 1e6), torch.ones(16, dtype=torch.int64))
    assert (predicted.numpy() <= middle + 1.5 * half + 1e-4).all() and out.aux["clipped"].all()


@pytest.mark.parametrize("family", ["linear", "persistence"])
def test_what_never_ended_never_ends(family):
    world = made(family)
    world.prepare(linear_episodes(bound=np.inf))
    now, acted, _, _ = steps_of(linear_episodes(bound=np.inf, seed=1))
    state = world.observe(world.allocate(len(now)), {"observation": now}, {"action": acted}, torch.ones(len(now)), {})
    _, out = world.step(state, {"action": acted}, {"termination": torch.zeros(len(now))})
    assert not out.terminated.any() and (out.termination_probability == 0).all()


def test_persistence_stays_and_gives_the_means():
    world = made("persistence")
    data = linear_episodes()
    world.prepare(data)
    now, acted, _, reward = steps_of(data)
    predicted, out = stepped(world, now, acted)
    assert torch.equal(predicted, now)
    assert torch.allclose(out.reward, reward.mean().expand_as(out.reward))
    rate = sum(e.terminated for e in data) / len(now)
    assert torch.allclose(out.termination_probability, torch.tensor(rate, dtype=torch.float32))
    assert out.uncertainty.isnan().all()


def test_linear_takes_nested_spaces_and_emits_their_members():
    observation = spaces.Dict({"at": spaces.Discrete(4), "level": spaces.Box(-1, 1, (2,), np.float64)})
    action = spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (1,), np.float32)))
    chance = np.random.default_rng(0)
    episodes = [
        Episode(
            {
                "observation/at": (np.arange(21) + start) % 4,
                "observation/level": chance.uniform(-1, 1, (21, 2)),
            },
            {
                "action/0": chance.integers(0, 2, (20, 2)),
                "action/1": chance.uniform(-1, 1, (20, 1)).astype(np.float32),
            },
            chance.normal(size=20),
            True,
            False,
        )
        for start in range(6)
    ]
    world = made("linear", observation, action)
    world.prepare(episodes)
    acted = {path: torch.from_numpy(value[:16]) for path, value in episodes[0].action.items()}
    first = {path: torch.from_numpy(value[:16]) for path, value in episodes[0].observation.items()}
    state = world.observe(world.allocate(16), first, acted, torch.ones(16, dtype=torch.bool), {})
    state, out = world.step(state, acted, {"termination": torch.rand(16)})
    seen = world.emit(state)
    assert seen["observation/at"].dtype == torch.int64 and seen["observation/level"].dtype == torch.float64
    assert ((seen["observation/at"] >= 0) & (seen["observation/at"] < 4)).all()
    assert torch.equal(world.codec.encode(seen)[:, :4].sum(1), torch.ones(16))
    assert out.reward.isfinite().all()


def test_pictures_are_refused_by_the_linear_world():
    with pytest.raises(InvalidInput, match=r"observation: it is a picture \(8, 8, 3\)"):
        made("linear", spaces.Box(0, 255, (8, 8, 3), np.uint8))
