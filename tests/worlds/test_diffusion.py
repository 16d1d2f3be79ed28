"""The diffusion world: its contexts, its sampler, its outcomes, and what it learns in some seconds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from world_fitting import CATCH, POINT_MASS, actions, begin, drawn, episodes, fitted, same, segments, spec

from simservice.errors import ConfigError
from simservice.types import Episode, WorldSpec
from simservice.worlds import registry
from simservice.worlds.nets.denoiser import Denoiser, levels, sample
from simservice.worlds.palette import Palette
from simservice.worlds.pictures import centred

TINY = {
    **{"channels": [16], "patch": 4, "condition": 32, "outcome_channels": 16, "outcome_hidden": 32},
    **{"batch_size": 8, "steps": 1},
}


def untrained(env_id=CATCH, **changes):
    return fitted("diffusion", env_id, episodes(env_id), 0, {**TINY, **changes})


# ---- context ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", [CATCH, POINT_MASS])
def test_a_context_in_training_is_what_observing_frame_by_frame_makes(env_id):
    """A world that is grounded otherwise than it was trained is wrong from the first step on."""
    world = untrained(env_id, context=3)
    batch = segments(episodes(env_id), 16, 6, np.random.default_rng(1))
    frames = world.pictures.bytes_of(batch.observation["observation"])
    acted = world._acted_over_time(batch.action)
    state = world.allocate(16)
    for time in range(6):
        before = {path: leaf[:, max(time - 1, 0)] for path, leaf in batch.action.items()}
        first = torch.full((16,), time == 0)
        state = world.observe(state, {"observation": batch.observation["observation"][:, time]}, before, first, {})
        given = world._given(frames, acted, torch.full((16,), time))
        assert torch.equal(given.frames, state["frames"])
        assert torch.equal(given.acted[:, :-1], state["acted"][:, 1:])  # the last one is what will be done now
        assert (given.acted[:, -1, -1] == 1).all()


def test_garbage_that_a_lane_is_shown_counts_as_doubt_until_its_next_step():
    world = untrained()
    world.calibrate(episodes(CATCH)[:20])
    real = torch.from_numpy(np.concatenate([episode.observation["observation"] for episode in episodes(CATCH)])[:16])
    grey = torch.full_like(real, 128)
    half = torch.cat([real[:8], grey[8:]])
    first, again = torch.full((16,), True), torch.full((16,), False)
    done = actions(world, 16)

    def doubt(state, number):
        after, out = world.step(state, done, drawn(world, "step", torch.arange(16), number))
        return after, out.uncertainty

    plain, mixed = (world.observe(world.allocate(16), {"observation": rows}, done, first, {}) for rows in (real, half))
    assert (mixed["strange"][:8] == 0).all() and (mixed["strange"][8:] > 1).all()
    assert torch.equal(doubt(mixed, 1)[1][:8], doubt(plain, 1)[1][:8])  # real frames are as they were
    # It stays in the context when a real frame follows, and is forgotten with an episode's first frame, or a step.
    assert torch.equal(world.observe(mixed, {"observation": real}, done, again, {})["strange"], mixed["strange"])
    assert not world.observe(mixed, {"observation": real}, done, first, {})["strange"].any()
    after, told = doubt(mixed, 1)
    assert (told[8:] >= mixed["strange"][8:]).all()
    assert not after["strange"].any()


def test_a_step_shifts_the_frame_it_shows_into_the_context():
    world = untrained(context=2)
    state = begin(world, torch.arange(16))
    after, _ = world.step(state, actions(world, 16), drawn(world, "step", torch.arange(16), 1))
    assert torch.equal(after["frames"][:, 0], state["frames"][:, 1])
    shown = world.pictures.bytes_of(world.emit(after)["observation"])
    assert torch.equal(after["frames"][:, 1], shown)


def test_continuous_actions_are_of_unit_spread_for_the_network():
    world = untrained(POINT_MASS)
    acted = np.concatenate([episode.action["action"] for episode in episodes(POINT_MASS)])
    scaled = world._action({"action": torch.from_numpy(acted)})
    assert torch.allclose(scaled.mean(0), torch.zeros(2), atol=1e-4)
    assert torch.allclose(scaled.std(0), torch.ones(2), atol=1e-2)


def test_drawn_frames_have_only_the_values_of_the_data_where_those_are_few():
    world = untrained()
    assert [row.unique().tolist() for row in world.palette.nearest] == [[0, 255], [0, 180], [0, 255]]
    state = begin(world, torch.arange(16))
    state, _ = world.step(state, actions(world, 16), drawn(world, "step", torch.arange(16), 1))
    for channel, values in enumerate([{0, 255}, {0, 180}, {0, 255}]):
        assert set(state["frames"][:, -1, channel].unique().tolist()) <= values


def test_a_channel_of_many_values_is_left_as_it_is_and_others_go_to_the_nearest():
    palette = Palette(2)
    frames = torch.stack([torch.arange(256).view(16, 16), torch.arange(256).view(16, 16) // 100 * 90])
    assert torch.equal(palette(frames[None].byte()), frames[None].byte())
    palette.fit([frames[None].byte()])
    again = palette(frames[:1].repeat(2, 1, 1)[None].byte())[0]
    assert torch.equal(again[0], frames[0].byte())
    assert again[1].unique().tolist() == [0, 90, 180]
    assert again[1].flatten()[[0, 44, 46, 134, 136, 255]].tolist() == [0, 0, 90, 90, 180, 180]


# ---- sampling --------------------------------------------------------------------------------------------------------


def test_the_schedule_falls_from_the_highest_level_to_none():
    assert levels(1, highest=5.0, lowest=0.002) == pytest.approx((5.0, 0.0))
    three = levels(3, highest=5.0, lowest=0.002)
    assert three == pytest.approx((5.0, 0.2831, 0.002, 0.0), rel=1e-3)


class Knowing(Denoiser):
    """Knows the clean frame, whatever it is shown."""

    def forward(self, noisy, sigma, before, acted, level):
        return torch.full_like(noisy, 0.25)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_euler_steps_arrive_where_a_perfect_denoiser_points(steps):
    perfect = Knowing(
        *((3, 8, 8), 1, 4), channels=[16], blocks=1, patch=1, attention=False, condition=16, offset_noise=0.0
    )
    noise = torch.randn(2, 3, 8, 8)
    frame = sample(
        perfect, noise, levels(steps, highest=5.0, lowest=0.002), noise, noise[:, 0, 0, :4], noise[:, 0, 0, 0]
    )
    assert torch.allclose(frame, torch.full_like(frame, 0.25), atol=1e-6)


def test_without_noise_the_estimate_is_the_frame_itself():
    torch.manual_seed(0)
    denoiser = Denoiser(
        *((3, 8, 8), 1, 4), channels=[16], blocks=1, patch=1, attention=True, condition=16, offset_noise=0.0
    )
    frame, ones = torch.randn(2, 3, 8, 8), torch.ones(2)
    estimate = denoiser(frame, ones * 1e-4, frame, torch.zeros(2, 4), ones)
    assert torch.allclose(estimate, frame, atol=1e-2)


def test_the_error_a_denoiser_expects_is_learned_from_its_own():
    """Estimates of pictures that are half noise: it comes to expect more there, and the estimate learns nothing."""
    torch.manual_seed(0)
    shape, ones = (1, 16, 16), torch.ones(32)
    denoiser = Denoiser(
        *(shape, 1, 4), channels=[16], blocks=1, patch=2, attention=False, condition=16, offset_noise=0.0
    )
    judge = torch.optim.Adam(denoiser.parameters(), lr=1e-2)
    unknown = torch.randn(32, *shape) * (torch.arange(16) >= 8)
    for _ in range(60):
        _, misjudged = denoiser.miss(unknown, ones * 5, unknown * 0, torch.zeros(32, 4), ones)
        judge.zero_grad()
        misjudged.mean().backward()
        assert (denoiser.net.leave.weight.grad[:4] == 0).all()  # those of the picture
        judge.step()
    _, expected, _, _ = denoiser.raw(unknown, ones * 5, unknown * 0, torch.zeros(32, 4), ones)
    assert expected[..., 2:].mean() > expected[..., :2].mean() + 1


@pytest.mark.parametrize("shape", [(21, 30), (10, 11, 3), (3, 17, 12)])
def test_frames_of_any_size_are_drawn(shape):
    space = spaces.Box(0, 255, shape, np.uint8)
    contract = WorldSpec(
        name="any", version="", family="diffusion", observation_space=space, action_space=spaces.MultiDiscrete([3, 2])
    )
    world = registry.create("diffusion", contract, {**TINY, "channels": [16, 32], "attention": True}).eval()
    with torch.no_grad():
        state = world.init(drawn(world, "init", torch.arange(16), 0))
        state, _ = world.step(state, actions(world, 16), drawn(world, "step", torch.arange(16), 1))
        assert all(space.contains(frame) for frame in world.emit(state)["observation"].numpy())


def test_generated_starts_come_from_their_noise_and_are_trained():
    world = untrained(starts="generated")
    starts = begin(world, torch.arange(16))
    assert world.draws["init"].keys() == {"noise"}
    assert not torch.equal(starts["frames"][0], starts["frames"][1])
    assert same(starts, begin(world, torch.arange(16)))
    batch = segments(episodes(CATCH), 8, 4, np.random.default_rng(0))
    loss, parts = world.requires_grad_(True).loss(batch, {}, "frames")
    assert loss.isfinite() and parts.keys() == {"frame", "doubt", "termination", "reward"}


# ---- outcomes --------------------------------------------------------------------------------------------------------


def test_rewards_that_take_few_values_are_drawn_from_those():
    world = untrained()
    state, seeds = begin(world, torch.arange(64)), torch.arange(64)
    for step in range(5):
        state, out = world.step(state, actions(world, 64, step), drawn(world, "step", seeds, step))
        assert set(out.reward.tolist()) <= {-1.0, 0.0, 1.0}


def rewarded(rewards):
    rewards = np.asarray(rewards, dtype=np.float64)
    frames = np.zeros((len(rewards) + 1, 8, 8, 3), np.uint8)
    return Episode(
        observation={"observation": frames},
        action={"action": np.zeros(len(rewards), np.int64)},
        reward=rewards,
        terminated=False,
        truncated=True,
    )


def outcome(*episodes, older=None):
    space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    contract = WorldSpec(
        name="any", version="", family="diffusion", observation_space=space, action_space=spaces.Discrete(2)
    )
    world = registry.create("diffusion", contract, TINY)
    if older is not None:
        world.load_state_dict(older.state_dict())
    world.prepare(episodes)
    return world


def test_rewards_that_take_many_values_are_a_number_near_the_data():
    world = outcome(rewarded(np.linspace(2.0, 4.0, 40))).eval()
    state, seeds = begin(world, torch.arange(16)), torch.arange(16)
    _, out = world.step(state, actions(world, 16), drawn(world, "step", seeds, 1))
    assert not world.outcome.is_class
    assert (out.reward >= 1.5).all() and (out.reward <= 4.5).all()


def test_values_of_the_reward_keep_their_class_when_other_data_brings_new_ones():
    first = outcome(rewarded([0.0, 5.0, 5.0]))
    second = outcome(rewarded([-1.0, 5.0, 0.0]), older=first)
    assert second.outcome.values[:3].tolist() == [0.0, 5.0, -1.0]
    assert (second.outcome.barred == 0).sum() == 3


def test_without_an_end_in_the_data_nothing_ends():
    world = outcome(rewarded([0.0, 1.0, 0.0])).eval()
    state, seeds = begin(world, torch.arange(16)), torch.arange(16)
    _, out = world.step(state, actions(world, 16), drawn(world, "step", seeds, 1))
    assert (out.termination_probability == 0).all() and not out.terminated.any()


def test_a_memory_carries_over_what_no_frame_shows():
    world = untrained(memory=16)
    state = begin(world, torch.arange(16))
    assert (state["memory"] == 0).all()
    after, _ = world.step(state, actions(world, 16), drawn(world, "step", torch.arange(16), 1))
    other = {**after, "memory": after["memory"] + 1}
    draws = drawn(world, "step", torch.arange(16), 2)
    one, two = (world.step(rows, actions(world, 16), draws)[1] for rows in (after, other))
    assert not torch.equal(one.termination_probability, two.termination_probability)


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"channels": [20]}, {"channels": []}, {"memory": 8}, {"steps": 0}, {"sigma_min": 9.0}, {"context_level": 1.5}],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        registry.create("diffusion", spec("diffusion", CATCH), {**TINY, **wrong})


# ---- learning --------------------------------------------------------------------------------------------------------


def upside_down(data):
    return [
        replace(e, observation={path: np.ascontiguousarray(rows[:, ::-1]) for path, rows in e.observation.items()})
        for e in data
    ]


def one_step_error(world, data):
    """Root mean squared error of the next frame, grounded in one frame."""
    before, after = (
        np.concatenate([e.observation["observation"][part] for e in data]) for part in (slice(-1), slice(1, None))
    )
    action = {"action": torch.from_numpy(np.concatenate([e.action["action"] for e in data]))}
    lanes = len(before)
    first = torch.ones(lanes, dtype=torch.bool)
    state = world.observe(world.allocate(lanes), {"observation": torch.from_numpy(before)}, action, first, {})
    state, _ = world.step(state, action, drawn(world, "step", torch.arange(lanes), 1))
    missed = centred(world.emit(state)["observation"]) - centred(torch.from_numpy(after))
    return float(missed.square().mean().sqrt())


def test_predictions_follow_the_physics_of_the_data():
    """A world of falling balls, one of rising balls: each knows its own and is wrong about the other."""
    quick = {**TINY, "channels": [32], "context": 1, "batch_size": 16, "share_at_max": 1.0, "learning_rate": 4e-3}
    falling, held_out = episodes(CATCH), episodes(CATCH, 100, 7)
    worlds = [fitted("diffusion", CATCH, data, 250, quick) for data in (falling, upside_down(falling))]
    for own, other, data in ((0, 1, held_out), (1, 0, upside_down(held_out))):
        assert one_step_error(worlds[own], data) < 0.7 * one_step_error(worlds[other], data)
