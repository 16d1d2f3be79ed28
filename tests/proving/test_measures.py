"""Figures of pictures, on worlds whose answers are known: one copies the last frame, one plays Catch exactly."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from simservice.data.collect import RealStepCounter
from simservice.data.environments import make_environment
from simservice.grounds import cartpole_pixels, catch
from simservice.proving.measures_latent import latent_figures
from simservice.proving.measures_pictures import action_figures, cartpole_figures, catch_figures
from simservice.proving.record import record
from simservice.training.strip import dreamt_frames, strip
from simservice.types import WorldSpec
from simservice.worlds import registry
from simservice.worlds.families.persistence import Persistence
from simservice.worlds.world import Slot, StepOut


def spec_of(env_id, **env_kwargs):
    env = make_environment(env_id, env_kwargs)
    return WorldSpec(
        name="any",
        version="",
        family="persistence",
        observation_space=env.observation_space,
        action_space=env.action_space,
    )


def trial(env_id, world=None, **env_kwargs):
    """What a measure looks at."""
    episodes = record(env_id, 300, 1, "random", RealStepCounter(), env_kwargs)
    if world is None:
        world = registry.create("persistence", spec_of(env_id, **env_kwargs))
    world.prepare(episodes)
    return SimpleNamespace(
        world=world,
        fresh=lambda steps: record(env_id, min(steps, 700), 2, "random", RealStepCounter(), env_kwargs),
    )


class ExactCatch(Persistence):
    """Reads ball and paddle from the frame, moves them, and draws them again."""

    context_frames = 3  # that it needs no more than one changes nothing

    def step(self, state, action, draws):
        seen = catch.read(state["observation"].numpy())
        row = np.minimum(seen["ball_row"] + 1, catch.CELLS - 1)
        paddle = np.clip(seen["paddle"] + action["action"].numpy() - 1, 0, catch.CELLS - 1)
        frames = [
            catch.draw((int(r), int(c)), int(p)) for r, c, p in zip(row, seen["ball_column"], paddle, strict=True)
        ]
        ended = torch.from_numpy(row == catch.CELLS - 1)
        caught = torch.from_numpy(seen["ball_column"] == paddle)
        out = StepOut(
            reward=torch.where(ended, torch.where(caught, 1.0, -1.0), 0.0),
            terminated=ended,
            termination_probability=ended.float(),
            uncertainty=torch.zeros(len(frames)),
            aux={},
        )
        return {"observation": torch.from_numpy(np.stack(frames))}, out


def test_an_exact_world_of_catch_gets_every_figure_right():
    found = catch_figures(trial("simservice/Catch-v0", ExactCatch(spec_of("simservice/Catch-v0"))))
    for name in (
        "shown_exact",
        "frame_accuracy",
        "open_loop_exact",
        "open_loop_exact_last",
        "reward_accuracy",
        "end_accuracy",
    ):
        assert found[name] == 1.0, name
    assert found["mse"] == 0.0 and found["end_average_precision"] == 1.0 and found["reward_ap"] == 1.0
    assert found["end_base_rate"] == pytest.approx(1 / 7)


def test_copying_the_last_frame_gets_none_of_catch_right():
    found = catch_figures(trial("simservice/Catch-v0"))
    assert found["frame_accuracy"] == 0.0 and found["open_loop_exact"] == 0.0
    assert found["mse_of_persistence"] == pytest.approx(1.0)
    assert found["end_accuracy"] == pytest.approx(6 / 7)  # it never says that an episode ends


def test_copying_the_last_frame_is_what_persistence_is_and_obeys_nothing():
    found = cartpole_figures(trial("simservice/CartPolePixels-v0"))
    assert found["angle_error_10_of_persistence"] == pytest.approx(1.0)
    assert found["object_psnr_0"] > 80 and found["object_psnr_1"] == found["object_psnr_1_persistence"] < 40
    assert found["pole_seen_10"] == 1.0
    assert action_figures(trial("simservice/PointMass-v0"), 200)["action_ratio"] == pytest.approx(1.0)


def test_a_world_that_obeys_is_wrong_under_other_actions():
    found = action_figures(trial("simservice/Catch-v0", ExactCatch(spec_of("simservice/Catch-v0"))), 300)
    assert found["action_ratio"] > 100


class Knowing(Persistence):
    """Its state is what the frame shows, or what one of another lane shows."""

    others = False

    @property
    def slots(self):
        return {**super().slots, "where": Slot((2,), torch.float32)}

    def observe(self, state, observation, previous_action, is_first, draws):
        truth = cartpole_pixels.read(observation["observation"].numpy())
        where = torch.from_numpy(np.stack([truth["position"], truth["angle"]], -1) * 1_000).float()
        after = super().observe(observation, observation, previous_action, is_first, draws)
        return {**after, "where": where.roll(1, 0) if self.others else where}

    def emit(self, state):
        return super().emit({"observation": state["observation"]})


def test_a_linear_reading_finds_what_a_state_holds_and_nothing_where_it_holds_another_lanes():
    seen = trial("simservice/CartPolePixels-v0", Knowing(spec_of("simservice/CartPolePixels-v0")))
    found = latent_figures(seen)
    assert found["probe_position"] > 0.999 and found["probe_angle"] > 0.999
    seen.world.others = True
    found = latent_figures(seen)
    assert found["probe_position"] < 0.5 and found["probe_angle"] < 0.5


def test_a_strip_shows_reality_the_dream_and_their_difference():
    seen = trial("simservice/Catch-v0", ExactCatch(spec_of("simservice/Catch-v0")))
    picture = strip(*dreamt_frames(seen.world, seen.fresh(70)[0], 7))
    rows = np.split(picture, 3)
    assert picture.dtype == np.uint8 and rows[0].shape == rows[2].shape
    assert np.array_equal(rows[0], rows[1])
    assert not (rows[2][1:-1] > 70).any()  # an exact dream differs nowhere; the frame's lines are as bright as that
