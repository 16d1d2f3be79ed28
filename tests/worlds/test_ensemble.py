"""What the ensemble promises beyond the contract: members, termination, reward, doubt and bounds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from world_fitting import CART_POLE, PENDULUM, begin, episodes, fitted, spec

from simservice.errors import ConfigError, InvalidInput, UnsupportedSpace
from simservice.types import Episode
from simservice.worlds import registry
from simservice.worlds.noise import lane_draws

SMALL = {"members": 3, "hidden": 32, "head_hidden": 32, "rows_per_member": 64}


@pytest.fixture(scope="module")
def cart():
    """A small ensemble, trained on 600 random steps."""
    return fitted("ensemble", CART_POLE, episodes(CART_POLE), updates=300, overrides=SMALL)


def probabilities(world, observation):
    """Termination probabilities of states reached: a step that changes nothing leads there."""
    with torch.inference_mode():
        inputs = torch.zeros(len(observation), world.judges._first[0].shape[1] - observation.shape[1])
        return world._termination_probability(world._judge(world._normalised("observation", observation), inputs))


def reached(data):
    return torch.from_numpy(np.concatenate([episode.observation["observation"][1:] for episode in data]))


def is_end(data):
    return np.concatenate([np.arange(len(e)) == len(e) - 1 if e.terminated else np.zeros(len(e), bool) for e in data])


def advance(world, state, action=0, seed=0):
    lanes = len(state["features"])
    seeds = torch.arange(lanes) + seed
    draws = lane_draws(world.draws["step"], seeds, torch.zeros_like(seeds), "step")
    with torch.inference_mode():
        return world.step(state, {"action": torch.full((lanes,), action)}, draws)


# ---- members ---------------------------------------------------------------------------------------------------------


def test_every_member_imagines_its_share_of_the_lanes_and_keeps_them(cart):
    state = begin(cart, torch.arange(300))
    counts = torch.bincount(state["member"], minlength=3)
    assert counts.sum() == 300 and (counts > 70).all()
    after, _ = advance(cart, state)
    assert torch.equal(after["member"], state["member"])


def test_a_longer_context_does_not_change_the_member_its_first_frame_drew(cart):
    state, frame = begin(cart, torch.arange(64)), {"observation": torch.zeros(64, 4)}
    acted, draws = {"action": torch.zeros(64, dtype=torch.int64)}, {"member": torch.full((64,), 0.99)}
    later = cart.observe(state, frame, acted, torch.zeros(64, dtype=torch.bool), draws)
    first = cart.observe(state, frame, acted, torch.ones(64, dtype=torch.bool), draws)
    assert torch.equal(later["member"], state["member"])
    assert (first["member"] == 2).all()


def test_members_differ_and_lanes_of_one_member_do_not(cart):
    features = torch.tensor([0.1, 0.2, 0.05, -0.3]).repeat(16, 1)
    state = {"features": features, "member": torch.arange(16) % 3}
    draws = {"change": torch.zeros(16, 4), "termination": torch.zeros(16)}
    after, _ = cart.step(state, {"action": torch.ones(16, dtype=torch.int64)}, draws)
    assert torch.equal(after["features"][0], after["features"][3])
    assert not torch.equal(after["features"][0], after["features"][1])


# ---- termination -----------------------------------------------------------------------------------------------------


def test_relabelled_time_limits_change_nothing():
    data = [replace(episode, truncated=False) for episode in episodes(CART_POLE, steps=200)]
    relabelled = [replace(episode, truncated=not episode.truncated) for episode in data]
    one, other = (fitted("ensemble", CART_POLE, d, updates=20, overrides=SMALL) for d in (data, relabelled))
    assert torch.equal(probabilities(one, reached(data)), probabilities(other, reached(data)))
    assert all(torch.equal(a, b) for a, b in zip(one.weights().values(), other.weights().values(), strict=True))


def test_an_environment_that_never_terminates_is_a_world_that_never_does():
    world = fitted("ensemble", PENDULUM, episodes(PENDULUM, steps=300), updates=5, overrides=SMALL)
    assert (probabilities(world, torch.randn(64, 3) * 10) == 0).all()


def test_up_weighted_terminals_are_weighted_down_again(cart):
    data = episodes(CART_POLE)
    expected, ends = float(probabilities(cart, reached(data)).sum()), int(is_end(data).sum())
    assert cart.termination_weight > 5
    assert 0.6 * ends < expected < 1.6 * ends


def test_fallen_poles_end_episodes_and_upright_ones_do_not(cart):
    data = episodes(CART_POLE)
    probability, ends = probabilities(cart, reached(data)).numpy(), is_end(data)
    assert probability[ends].mean() > 0.3
    assert probability[~ends].mean() < 0.05


def test_termination_is_sampled_at_its_probability(cart):
    lanes = 4096
    state = {"features": torch.tensor([0.0, 0.0, 0.2, 0.3]).repeat(lanes, 1), "member": torch.zeros(lanes, dtype=int)}
    _, out = advance(cart, state)
    expected = out.termination_probability.mean()
    assert 0.02 < expected < 0.98
    assert abs(out.terminated.float().mean() - expected) < 4 * 0.5 / lanes**0.5


# ---- reward, doubt, bounds -------------------------------------------------------------------------------------------


def test_a_constant_reward_is_learned_exactly(cart):
    _, out = advance(cart, begin(cart, torch.arange(64)))
    assert (out.reward == 1.0).all()


def test_uncertainty_is_the_one_step_error_on_average_after_calibration():
    data = episodes(PENDULUM, steps=600)
    world = fitted("ensemble", PENDULUM, data, updates=200, overrides=SMALL)
    world.calibrate(data)
    rows = [(e.observation["observation"], e.action["action"]) for e in data]
    now = torch.from_numpy(np.concatenate([seen[:-1] for seen, _ in rows]))
    action = {"action": torch.from_numpy(np.concatenate([acted for _, acted in rows]))}
    then = reached(data)
    guesses = []
    for member in range(3):
        state = {"features": now, "member": torch.full((len(now),), member)}
        draws = {"change": torch.zeros(len(now), 3), "termination": torch.ones(len(now))}
        after, out = world.step(state, action, draws)
        guesses.append(after["features"])
    error = (torch.stack(guesses).mean(0) - then) * world.observation_scale
    assert float(out.uncertainty.mean()) == pytest.approx(float(error.square().mean(-1).sqrt().mean()), rel=0.05)


def test_members_disagree_where_there_was_no_data(cart):
    known = begin(cart, torch.arange(64))
    strange = {**known, "features": torch.tensor([0.0, 3.0, 0.4, -4.0]).repeat(64, 1)}
    assert advance(cart, strange)[1].uncertainty.mean() > 3 * advance(cart, known)[1].uncertainty.mean()


def test_states_stay_within_a_multiple_of_the_datas_range(cart):
    state = begin(cart, torch.arange(16))
    for time in range(400):
        state, out = advance(cart, state, action=1, seed=time)
    features = state["features"]
    assert (features >= cart.low).all() and (features <= cart.high).all()
    assert out.aux["clipped"].any()


def crashing(count=40):
    """Episodes that drift away at a reward of up to 1 a step and crash at -100."""
    chance, found = np.random.default_rng(0), []
    for _ in range(count):
        acted = chance.integers(2, size=12)
        seen = np.cumsum(
            np.concatenate([chance.normal(0, 0.1, (1, 4)), chance.normal(acted[:, None], 0.1, (12, 4))]), 0
        )
        reward = np.concatenate([chance.uniform(0, 1, 11) + acted[:11], [-100.0]])
        found.append(Episode({"observation": seen.astype(np.float32)}, {"action": acted}, reward, True, False))
    return found


@pytest.mark.parametrize("action", [0, 1])
def test_rewards_and_states_far_from_the_data_stay_within_a_multiple_of_their_range(action):
    data = crashing()
    world = fitted("ensemble", CART_POLE, data, updates=200, overrides=SMALL)
    state = {"features": torch.full((64, 4), 1e3) * torch.randn(64, 4), "member": torch.arange(64) % 3}
    world.low.fill_(-1e6), world.high.fill_(1e6)
    _, out = advance(world, state, action=action)
    ended = out.terminated
    low, high = min(e.reward[:-1].min() for e in data), max(e.reward[:-1].max() for e in data)
    room = (high - low) / 4 + 1e-6
    assert (out.reward[~ended] >= low - room).all() and (out.reward[~ended] <= high + room).all()
    assert (out.reward >= -100 - (high + 100) / 4 - 1e-4).all() and (out.reward <= high + (high + 100) / 4 + 1e-4).all()


def test_angles_stay_on_their_circle():
    world = fitted("ensemble", PENDULUM, episodes(PENDULUM, steps=300), updates=5, overrides=SMALL)
    state = begin(world, torch.arange(16))
    for time in range(200):
        draws = lane_draws(world.draws["step"], torch.arange(16), torch.full((16,), time), "step")
        state, _ = world.step(state, {"action": torch.full((16, 1), 2.0)}, draws)
    assert torch.allclose(state["features"][:, :2].norm(dim=1), torch.ones(16), atol=1e-6)


def test_a_lane_grounded_out_of_range_is_not_thrown_back(cart):
    far = torch.zeros(16, 4)
    far[:, 0] = cart.high[0] + 1.0
    after, _ = advance(cart, {"features": far, "member": torch.zeros(16, dtype=int)})
    assert (abs(after["features"][:, 0] - far[:, 0]) < 0.1).all()


# ---- spaces and settings ---------------------------------------------------------------------------------------------


def test_nested_spaces_of_numbers_and_categories_are_taken():
    observation = spaces.Dict({"arm": spaces.Box(-1, 1, (3,)), "gear": spaces.Discrete(3)})
    action = spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (2,))))
    world = registry.create(
        "ensemble", replace(spec("ensemble", CART_POLE), observation_space=observation, action_space=action), SMALL
    )
    seeds = torch.arange(16)
    state = world.init(lane_draws(world.draws["init"], seeds, seeds, "init"))
    acted = {"action/0": torch.ones(16, dtype=torch.int64), "action/1": torch.zeros(16, 2)}
    state, _ = world.step(state, acted, lane_draws(world.draws["step"], seeds, seeds, "step"))
    seen = world.emit(state)
    assert seen["observation/arm"].shape == (16, 3)
    assert seen["observation/gear"].dtype == torch.int64 and (seen["observation/gear"] < 3).all()


@pytest.mark.parametrize(
    ("space", "error"),
    [(spaces.Text(5), UnsupportedSpace), (spaces.Box(0, 255, (64, 64, 3), np.uint8), InvalidInput)],
    ids=["text", "picture"],
)
def test_what_is_no_vector_is_refused(space, error):
    with pytest.raises(error, match="observation"):
        registry.create("ensemble", replace(spec("ensemble", CART_POLE), observation_space=space))


@pytest.mark.parametrize(
    "wrong",
    [
        {"members": 1},
        {"hidden": 40},
        {"head_hidden": 8},
        {"range_factor": 0.5},
        {"updates": 0},
        {"ridge": 0.0},
        {"log_variance_low": 2.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises((ConfigError, ValueError), match=next(iter(wrong))):
        registry.create("ensemble", spec("ensemble", CART_POLE), wrong)
