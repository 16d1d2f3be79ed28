"""Windows of pictures: bytes until they are pooled, grounded in as many frames as the world asks for."""

import resource

import numpy as np
import pytest
import torch

from simservice.data.collect import collect
from simservice.data.environments import make_environment
from simservice.data.episodes import Dataset, fingerprint
from simservice.training.evaluate import evaluate
from simservice.training.loader import Loader
from simservice.training.trainer import train
from simservice.training.windows import cut_windows, forecast, nrmse, spread
from simservice.types import WorldSpec
from simservice.worlds import registry
from simservice.worlds.checkpoint import load
from simservice.worlds.rollout import imagine
from simservice.worlds.world import Phase


def recorded(env_id, steps, **arguments):
    env = make_environment(env_id, arguments)
    episodes = tuple(collect(env_id, steps=steps, seed=0, env_kwargs=arguments))
    return Dataset(
        episodes=episodes,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_id=env_id,
        env_kwargs=arguments,
        hash=fingerprint(episodes),
        real_steps=steps,
    )


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """The world that copies the last frame of Catch."""
    dataset = recorded("simservice/Catch-v0", 1400)
    out = tmp_path_factory.mktemp("still") / "world"
    summary = train(dataset, "persistence", out)
    return dataset, load(out).world, summary


def test_a_world_of_pictures_is_trained_stored_and_measured(still):
    dataset, world, summary = still
    errors = summary.evaluation.errors
    assert errors[1].world == pytest.approx(errors[1].persistence)
    assert errors[5].world > errors[1].world > 0.1
    assert np.isnan(errors[10].world) and errors[10].windows == 0  # no episode of Catch is that long
    frames = imagine(world, {"action": np.zeros((20, 1), np.int64)}).observation["observation"]
    assert frames.dtype == np.uint8
    starts = {episode.observation["observation"][0].tobytes() for episode in dataset.episodes}
    assert all(frame.tobytes() in starts for frame in frames[:, 0])


def test_batches_of_pictures_stay_bytes(still):
    dataset, _, _ = still
    phase = Phase(name="any", updates=1, batch_size=4, segment_length=5, learning_rate=0.1)
    batch = Loader(dataset.episodes, 0).batch(phase, 0, 0)
    assert batch.observation["observation"].dtype == torch.uint8
    assert batch.observation["observation"].shape == (4, 6, 32, 32, 3)


def test_windows_carry_as_many_frames_as_were_seen_before_their_start(still):
    dataset, world, _ = still
    windows = cut_windows(dataset.episodes[:1], 3, 100, frames=4)
    assert windows.frames.tolist() == [1, 2, 3, 4, 4, 4, 4]
    seen = dataset.episodes[0].observation["observation"]
    assert np.array_equal(windows.history.observation["observation"][5], seen[2:6])
    assert np.array_equal(windows.history.action["action"][5], dataset.episodes[0].action["action"][2:5])
    guess, _ = forecast(world, windows, copies=2)
    assert np.allclose(guess[:, 2], windows.truth[:, 0])


def test_beside_a_vector_a_picture_counts_as_one_leaf():
    episodes = recorded("simservice/CartPolePixels-v0", 120, dict=True).episodes
    windows, scale = cut_windows(episodes, 5, 20), spread(episodes)
    deviation = np.concatenate([episode.observation["observation/vector"] for episode in episodes]).std(axis=0)
    guess = windows.truth.copy()
    guess[..., -4:] += deviation  # every number of the vector is wrong by one standard deviation, the picture is right
    assert nrmse(guess, windows, scale)[0] == pytest.approx(np.sqrt(1 / 2))


def test_evaluating_pictures_takes_little_memory():
    dataset = recorded("simservice/CartPolePixels-v0", 1500, size=64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = evaluate(still_world(dataset), dataset.episodes[:20], dataset.episodes[20:])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert found.errors[10].world > 0.1
    assert grown < 800, f"{grown:.0f} MiB"


def still_world(dataset):
    spec = WorldSpec(
        name="still",
        version="",
        family="persistence",
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
    )
    world = registry.create("persistence", spec)
    world.prepare(dataset.episodes)
    return world
