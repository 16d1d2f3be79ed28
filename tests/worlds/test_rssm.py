"""The rssm family: what it sees and shows, that grounding is what it was trained on, and that it learns."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from world_fitting import CART_POLE, drawn, episodes, fitted, same, segments

from simservice.data.collect import collect
from simservice.proving.rows.ground import auroc
from simservice.types import Episode, WorldSpec, leaves_of, to_leaves
from simservice.worlds import registry
from simservice.worlds.codec import torch_dtype
from simservice.worlds.nets.distributions import TwoHot, mixed, pick, pick_straight_through
from simservice.worlds.one_step import one_step_errors

FRAME = spaces.Box(0, 255, (32, 32, 3), np.uint8)
SPACES = {
    "picture": (FRAME, spaces.Discrete(3)),
    "odd grey picture": (spaces.Box(0, 255, (50, 41), np.uint8), spaces.MultiDiscrete([3, 2])),
    "picture and vector": (
        spaces.Dict(image=FRAME, vector=spaces.Box(-9, 9, (3,), np.float32)),
        spaces.Box(-2, 2, (2,), np.float32),
    ),
    "nested": (
        spaces.Tuple((spaces.Discrete(4), spaces.Dict(a=FRAME, b=spaces.Box(-1, 1, (2, 2), np.float64)))),
        spaces.Dict(a=spaces.MultiBinary(3), b=spaces.Discrete(2, start=1)),
    ),
}


def noise_episodes(observation_space, action_space, count=4, steps=10):
    """Episodes of nothing but luck: for shapes and bits."""
    chance = np.random.default_rng(0)
    made = []
    for number in range(count):
        seen = drawn_leaves(observation_space, "observation", steps + 1, number)
        acted = drawn_leaves(action_space, "action", steps, number)
        made.append(Episode(seen, acted, chance.normal(size=steps), terminated=bool(number % 2), truncated=False))
    return made


def drawn_leaves(space, root, count, seed):
    space.seed(seed)
    values = [to_leaves(space, space.sample(), root) for _ in range(count)]
    return {
        leaf.path: np.stack([np.asarray(value[leaf.path], leaf.dtype) for value in values])
        for leaf in leaves_of(space, root)
    }


def untrained(observation_space, action_space, **overrides):
    spec = WorldSpec(
        name="w", version="", family="rssm", observation_space=observation_space, action_space=action_space
    )
    torch.manual_seed(0)
    world = registry.create("rssm", spec, overrides)
    data = noise_episodes(observation_space, action_space)
    world.prepare(data)
    for parameter in world.outcome.last.parameters():  # begins at zero, which would hide everything
        torch.nn.init.normal_(parameter, std=0.1)
    return world.eval().requires_grad_(False), data


def tensors(leaves):
    return {path: torch.from_numpy(value) for path, value in leaves.items()}


@pytest.mark.parametrize("kind", SPACES)
def test_pictures_vectors_and_both_are_seen_and_shown_whatever_the_actions(kind):
    world, data = untrained(*SPACES[kind])
    loss, parts = world.loss(segments(data, 4, 5, np.random.default_rng(0)), {}, "model")
    assert loss.isfinite() and all(part.isfinite() for part in parts.values())
    seeds = torch.arange(16)
    state = world.init(drawn(world, "init", seeds, 0))
    action = tensors(drawn_leaves(SPACES[kind][1], "action", 16, 5))
    state, _ = world.step(state, action, drawn(world, "step", seeds, 1))
    shown = world.emit(state)
    wanted = {
        leaf.path: ((16, *leaf.shape), torch_dtype(leaf.dtype)) for leaf in leaves_of(SPACES[kind][0], "observation")
    }
    assert {path: (tuple(value.shape), value.dtype) for path, value in shown.items()} == wanted


@pytest.mark.parametrize("kind", SPACES)
def test_a_lane_of_pictures_does_not_feel_its_companions(kind):
    world, _ = untrained(*SPACES[kind])
    seeds, order = torch.arange(16), torch.arange(16).flip(0)
    action = tensors(drawn_leaves(SPACES[kind][1], "action", 16, 5))

    def tick(seeds, action):
        state = world.init(drawn(world, "init", seeds, 0))
        seen = world.emit(state)
        state = world.observe(state, seen, action, seeds % 2 == 0, drawn(world, "observe", seeds, 1))
        state, out = world.step(state, action, drawn(world, "step", seeds, 1))
        return {**state, **world.emit(state), "doubt": out.uncertainty, "reward": out.reward}

    there = tick(seeds, action)
    here = tick(seeds[order], {path: value[order] for path, value in action.items()})
    assert same({name: value[order] for name, value in there.items()}, here)


def test_grounding_frame_by_frame_is_what_training_does_with_a_segment():
    world = fitted("rssm", CART_POLE, episodes(CART_POLE), 3)
    batch = segments(episodes(CART_POLE), 16, 6, np.random.default_rng(1))
    features = world.senses.features({"observation": batch.observation["observation"].transpose(0, 1).flatten(0, 1)})
    embedding = world.senses.encode(features, {}).view(7, 16, -1)
    acted = torch.stack([world._action({"action": batch.action["action"][:, time]}) for time in range(6)])
    uniform = torch.rand(7, 16, world.config.variables)
    known = world.model.filter(embedding, torch.cat([torch.zeros_like(acted[:1]), acted]), uniform)
    state = {name: value + 1 for name, value in world.allocate(16).items()}  # what was before must not matter
    for time in range(7):
        frame = {"observation": batch.observation["observation"][:, time]}
        previous = {"action": batch.action["action"][:, max(time - 1, 0)]}
        state = world.observe(state, frame, previous, batch.is_first[:, time], {"latent": uniform[time]})
        assert torch.allclose(state["memory"], known.memory[time], atol=1e-4), time
        assert torch.equal(state["latent"], known.latent[time]), time


def test_a_step_decodes_nothing(monkeypatch):
    world, _ = untrained(*SPACES["picture and vector"])
    seeds = torch.arange(16)
    state = world.init(drawn(world, "init", seeds, 0))

    def refuse(*_):
        raise AssertionError("a step decoded an observation")

    monkeypatch.setattr(world.senses, "vector", refuse)
    monkeypatch.setattr(world.senses, "picture", refuse)
    action = tensors(drawn_leaves(SPACES["picture and vector"][1], "action", 16, 5))
    world.step(state, action, drawn(world, "step", seeds, 1))


def test_shown_vectors_stay_within_one_and_a_half_times_the_range_of_the_data():
    world, data = untrained(spaces.Box(-9, 9, (3,), np.float32), spaces.Discrete(2))
    for parameter in world.senses.vector_decoder.last.parameters():
        torch.nn.init.normal_(parameter, std=100.0)
    seeds = torch.arange(64)
    state, _ = world.step(
        world.init(drawn(world, "init", seeds, 0)), {"action": seeds % 2}, drawn(world, "step", seeds, 1)
    )
    shown = world.emit(state)["observation"].numpy()
    rows = np.concatenate([episode.observation["observation"] for episode in data])
    room = 0.25 * np.ptp(rows, axis=0) + 1e-4
    assert (shown >= rows.min(0) - room).all() and (shown <= rows.max(0) + room).all()
    assert (shown > rows.max(0)).any()


def test_a_world_of_other_sizes_is_refused_in_words():
    with pytest.raises(Exception, match="blocks must be 1 or more and divide deter"):
        registry.create("rssm", spec_of(CART_POLE), {"blocks": 7})


def spec_of(env_id):
    env = gym.make(env_id)
    return WorldSpec(
        name="w",
        version="",
        family="rssm",
        observation_space=env.observation_space,
        action_space=env.action_space,
    )


# ---- distributions ---------------------------------------------------------------------------------------------------


def test_a_uniform_picks_the_class_whose_share_of_the_line_it_falls_into():
    probabilities = torch.tensor([[0.25, 0.5, 0.25]]).repeat(5, 1)
    picked = pick(probabilities, torch.tensor([0.0, 0.249, 0.25, 0.75, 1 - 2.0**-24]))
    assert picked.argmax(-1).tolist() == [0, 0, 1, 2, 2]
    assert torch.equal(picked.sum(-1), torch.ones(5))


def test_picking_passes_the_gradient_on_and_no_class_is_ever_impossible():
    logits = torch.tensor([[90.0, 0.0, 0.0, 0.0]], requires_grad=True)
    probabilities = mixed(logits, 0.01)
    assert float(probabilities.detach().min()) == pytest.approx(0.0025)
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    (gradient,) = torch.autograd.grad((pick_straight_through(probabilities, torch.zeros(1)) * weight).sum(), logits)
    (wanted,) = torch.autograd.grad((mixed(logits, 0.01) * weight).sum(), logits)
    assert torch.equal(gradient, wanted)


def test_two_hot_finds_the_mean_of_what_it_is_shown():
    head, value = TwoHot(32), torch.tensor([-1.0, 1.0, 5.0, 5.0])
    head.fit(-1.0, 5.0)
    logits = torch.zeros(2, 32, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        loss = head.loss(logits[[0, 0, 1, 1]], value).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert head.mean(logits).tolist() == pytest.approx([0.0, 5.0], abs=0.02)


# ---- learning --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    return fitted("rssm", CART_POLE, collect(CART_POLE, steps=1500, seed=0, policy="sticky", num_envs=3), 150)


def test_a_trained_world_is_right_about_the_next_frame_and_knows_how_wrong_it_is(trained):
    test = collect(CART_POLE, steps=400, seed=1, policy="sticky", num_envs=3)
    trained.calibrate(test)
    missed, said = one_step_errors(trained, collect(CART_POLE, steps=400, seed=2, policy="sticky", num_envs=3))
    assert float(missed.mean()) < 0.5
    assert float(said.mean()) == pytest.approx(float(missed.mean()), rel=0.3)


def test_a_given_state_that_is_none_is_told_in_the_first_step_from_there_and_a_real_one_is_not(trained):
    trained.calibrate(collect(CART_POLE, steps=400, seed=1, policy="sticky", num_envs=3))
    test = collect(CART_POLE, steps=400, seed=2, policy="sticky", num_envs=3)
    real = torch.from_numpy(np.concatenate([episode.observation["observation"] for episode in test])[:256])
    garbage = real + 10 * real.std(0) * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    seeds = torch.arange(len(real))
    action, opens = {"action": seeds % 2}, torch.ones_like(seeds, dtype=torch.bool)

    def given(observation):
        """What is unseen of the given state, and the doubt of two steps from there."""
        luck = drawn(trained, "observe", seeds, 0)
        state = trained.observe(trained.allocate(len(seeds)), {"observation": observation}, action, opens, luck)
        unseen = state["unseen"]
        state, first = trained.step(state, action, drawn(trained, "step", seeds, 1))
        return unseen, first.uncertainty, trained.step(state, action, drawn(trained, "step", seeds, 2))[1].uncertainty

    unseen, usual, _ = given(real)
    assert (unseen > 0).float().mean() < 0.05
    _, first, second = given(garbage)
    assert auroc(torch.cat([usual, first]).numpy(), np.repeat([False, True], len(real))) > 0.9
    assert (second < first).float().mean() > 0.9


def test_time_limits_are_no_ends(trained):
    data = collect(CART_POLE, steps=300, seed=3, policy="sticky", num_envs=3)
    relabelled = [replace(episode, truncated=not episode.truncated) for episode in data]
    losses = []
    for part in (data, relabelled):
        torch.manual_seed(0)
        losses.append(trained.loss(segments(part, 16, 8, np.random.default_rng(0)), {}, "model")[0])
    assert torch.equal(*losses)
