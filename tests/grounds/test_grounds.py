"""Every proving ground keeps Gymnasium's rules, and its truth can be read from its frames."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from simservice import grounds
from simservice.data.collect import collect
from simservice.data.environments import as_frames, make_environment
from simservice.data.minari import load_dataset, save_dataset
from simservice.errors import InvalidInput, UnknownEnvironment
from simservice.grounds import cartpole_pixels, catch, flip_ball, grid_dot, memory_door, point_mass

ARGUMENTS = {"simservice/Frames-v0": {"env_id": "CartPole-v1", "size": 32}}


def played(env_id, steps, **arguments):
    """Frames and truths of random play."""
    env = make_environment(env_id, arguments)
    env.action_space.seed(1)
    frame, _ = env.reset(seed=1)
    frames, truths = [frame], [dict(env.unwrapped.truth)]
    for _ in range(steps):
        frame, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            frame, _ = env.reset()
        frames.append(frame)
        truths.append(dict(env.unwrapped.truth))
    return frames, {name: np.array([truth[name] for truth in truths]) for name in truths[0]}


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("env_id", grounds.IDS)
def test_a_ground_keeps_gymnasiums_rules_and_repeats_itself_by_seed(env_id):
    env = make_environment(env_id, {**ARGUMENTS.get(env_id, {}), "render_mode": "rgb_array"})
    check_env(env.unwrapped, skip_render_check=True)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(5)]
    runs = []
    for _ in range(2):
        first, _ = env.reset(seed=3)
        runs.append([first, *(env.step(action)[0] for action in actions)])
        assert env.render().dtype == np.uint8
    assert all(np.array_equal(left, right) for left, right in zip(*runs, strict=True))
    env.close()


def test_grounds_step_side_by_side():
    envs = gym.make_vec("simservice.grounds:simservice/Catch-v0", num_envs=3, vectorization_mode="sync")
    frames, _ = envs.reset(seed=0)
    assert frames.shape == (3, 32, 32, 3)
    assert len(np.unique(frames.reshape(3, -1), axis=0)) > 1
    envs.close()


def test_random_play_of_catch_gets_what_chance_gives_and_the_best_play_gets_one():
    episodes = collect("simservice/Catch-v0", steps=14_000, seed=0)
    assert {len(episode) for episode in episodes} == {7}
    assert np.mean([episode.undiscounted_return for episode in episodes]) == pytest.approx(-0.75, abs=0.05)

    def follow(frames):
        seen = catch.read(frames)
        return np.sign(seen["ball_column"] - seen["paddle"]) + 1

    best = collect("simservice/Catch-v0", steps=700, seed=1, policy=follow)
    assert {episode.undiscounted_return for episode in best} == {1.0}


def test_the_truth_of_cells_is_read_from_frames():
    for name, module, hidden in (
        ("Catch", catch, set()),
        ("GridDot", grid_dot, {"ball_row", "ball_column"}),
        ("FlipBall", flip_ball, set()),
    ):
        frames, truth = played(f"simservice/{name}-v0", 200)
        read = module.read(np.stack(frames))
        assert read["clean"].all()
        for key in truth.keys() - hidden:
            assert np.array_equal(read[key], truth[key]), (name, key)


def test_the_truth_of_moving_points_is_read_from_frames_to_a_fraction_of_a_pixel():
    for size in (32, 64):
        frames, truth = played("simservice/CartPolePixels-v0", 300, size=size)
        read = cartpole_pixels.read(np.stack(frames))
        assert np.abs(read["position"] - truth["position"]).max() < 0.03
        assert np.abs(read["angle"] - truth["angle"]).max() < 0.03
    for name in ("PointMass", "TwoRoom"):
        frames, truth = played(f"simservice/{name}-v0", 200)
        read = point_mass.read(np.stack(frames))
        assert max(np.abs(read[axis] - truth[axis]).max() for axis in "xy") < 0.01


def test_cart_and_pole_are_two_pixels_or_more_wherever_they_are():
    for size in (32, 64):
        picture = cartpole_pixels.draw(np.array([[2.4, 0, 0.2, 0], [-2.4, 0, 0, 0], [0, 0, -0.2, 0]]), size)
        cart, pole = picture[..., 0] > 127, picture[..., 1] > 127
        assert cart.any(2).sum(1).min() >= 2 and cart.any(1).sum(1).min() >= 2
        assert pole.sum(2).max(1).min() >= 2 and pole.any(2).sum(1).min() >= size // 3


def test_stacked_pictures_show_velocity_and_a_dict_shows_the_true_state():
    env = make_environment("simservice/CartPolePixels-v0", {"stack": 2, "dict": True})
    seen, _ = env.reset(seed=0)
    assert np.array_equal(seen["image"][..., :3], seen["image"][..., 3:])
    before = seen["image"]
    for _ in range(4):
        seen = env.step(1)[0]
        assert np.array_equal(seen["image"][..., :3], before[..., 3:])
        before = seen["image"]
    assert not np.array_equal(seen["image"][..., :3], seen["image"][..., 3:])
    assert np.allclose(seen["vector"], env.unwrapped.state)


def test_flip_ball_turns_with_its_probability_and_both_forms_tell_the_same():
    _, truth = played("simservice/FlipBall-v0", 4000)
    turned = truth["direction"][1:] != truth["direction"][:-1]
    assert turned.mean() == pytest.approx(0.3, abs=0.03)
    vectors, truth = played("simservice/FlipBall-v0", 100, observation="vector")
    read = flip_ball.read(np.stack(vectors))
    assert all(np.array_equal(read[name], truth[name]) for name in truth)


def test_no_way_leads_through_the_wall_but_the_door():
    env = make_environment("simservice/TwoRoom-v0")
    env.reset(seed=0, options={"position": (0.4, 0.2)})
    for _ in range(10):
        env.step(np.array([1.0, 0.0], np.float32))
    assert env.unwrapped.truth["x"] < 0.5
    env.reset(seed=0, options={"position": (0.4, 0.5)})
    for _ in range(3):
        env.step(np.array([1.0, 0.0], np.float32))
    assert env.unwrapped.truth["x"] > 0.55


def test_the_lamp_leaves_the_view_and_only_its_colour_opens_the_door():
    env = make_environment("simservice/MemoryDoor-v0")
    frame, _ = env.reset(seed=2)
    colour = memory_door.read(frame)["colour"]
    assert colour == env.unwrapped.truth["colour"] and memory_door.read(frame)["seen"]
    for _ in range(8):
        frame, reward, terminated, _, _ = env.step(1)
        assert reward == 0 and not terminated
    assert not memory_door.read(frame)["seen"]
    assert env.step(2 + int(colour))[1:3] == (1.0, True)


def test_pictures_of_any_environment_are_recorded_and_read_back(tmp_path):
    env_id, arguments = as_frames("CartPole-v1", None, 32, stack=2)
    episodes = collect(env_id, steps=40, seed=0, env_kwargs=arguments)
    assert episodes[0].observation["observation"].shape[1:] == (32, 32, 6)
    saved = save_dataset(episodes, "simservice/frames/random-v0", env_id=env_id, env_kwargs=arguments, root=tmp_path)
    found = load_dataset("simservice/frames/random-v0", tmp_path)
    assert found.hash == saved.hash
    assert found.max_episode_steps == 500
    assert all(
        np.array_equal(left.observation["observation"], right.observation["observation"])
        for left, right in zip(episodes, found.episodes, strict=True)
    )
    again = make_environment(found.env_id, found.env_kwargs)
    assert again.observation_space == found.observation_space
    again.close()


def test_what_cannot_be_drawn_or_is_not_there_is_refused_in_words():
    with pytest.raises(UnknownEnvironment, match=r"did you mean 'simservice/Catch-v0'"):
        make_environment("simservice/Katch-v0")
    with pytest.raises(InvalidInput, match="8 pixels"):
        make_environment(*as_frames("CartPole-v1", None, 2))
    with pytest.raises(InvalidInput, match="'image' and 'vector'"):
        make_environment("simservice/FlipBall-v0", {"observation": "sound"})
