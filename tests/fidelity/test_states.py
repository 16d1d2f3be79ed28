"""The horizon curve and the trust horizon, against answers that are known in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simservice.errors import InvalidInput
from simservice.fidelity.bootstrap import unit_weights
from simservice.fidelity.states import horizon_error_curve, trust_horizon
from simservice.fidelity.traces import Traces, matrix, mean_while_running


def walks(windows: int = 400, steps: int = 20, dims: int = 3, per_episode: int = 4, seed: int = 0) -> Traces:
    """Random walks of three very different scales, `per_episode` windows an episode."""
    generator = np.random.default_rng(seed)
    scale = 10.0 ** np.arange(dims)
    observation = np.cumsum(generator.normal(size=(windows, steps + 1, dims)), axis=1) * scale
    none = np.zeros((windows, steps), dtype=bool)
    return Traces(
        observation=observation,
        reward=np.zeros((windows, steps)),
        terminated=none,
        truncated=none,
        valid=~none,
        unit=np.arange(windows) // per_episode,
    )


def with_observation(traces: Traces, observation: np.ndarray) -> Traces:
    return replace(traces, observation=observation)


def ending_at(traces: Traces, length: np.ndarray) -> Traces:
    """The same windows, where window i ends with a termination after length[i] steps."""
    step = np.arange(traces.horizon)
    return replace(traces, valid=step < length[:, None], terminated=step == length[:, None] - 1)


def test_a_perfect_world_has_no_error_and_the_full_horizon():
    real = walks()
    curve = horizon_error_curve(real, real)
    np.testing.assert_array_equal(curve.error, 0)
    np.testing.assert_array_equal(curve.upper, 0)
    np.testing.assert_array_equal(curve.alive, 1)
    assert trust_horizon(curve) == trust_horizon(curve, tau=0.0) == 20
    assert (curve.windows, curve.episodes) == (400, 100)


def test_predicting_the_average_future_gives_exactly_one():
    real = walks()
    average = np.broadcast_to(real.observation.mean(axis=0), real.observation.shape)
    curve = horizon_error_curve(real, with_observation(real, average))
    np.testing.assert_allclose(curve.error, 1.0, rtol=1e-9)
    assert trust_horizon(curve) == 0


def test_an_unrelated_trajectory_gives_the_square_root_of_two():
    real, other = walks(windows=20_000, per_episode=1), walks(windows=20_000, per_episode=1, seed=1)
    curve = horizon_error_curve(real, other, resamples=2)
    np.testing.assert_allclose(curve.error, np.sqrt(2), rtol=0.02)


def test_an_error_of_known_size_is_found_at_every_lead_and_in_every_unit():
    """An error of k standard deviations of the future, in each dimension, is k, whatever the sensor's scale."""
    real = walks(windows=50_000, per_episode=1, steps=9)
    spread = real.observation[:, 1:].std(axis=0)
    wrong = real.observation.copy()
    wrong[:, 1:] += 0.25 * spread * np.arange(1, 10)[None, :, None] / 9
    curve = horizon_error_curve(real, with_observation(real, wrong), resamples=2)
    np.testing.assert_allclose(curve.error, 0.25 * np.arange(1, 10) / 9, rtol=1e-6)


@pytest.mark.parametrize(("tau", "expected"), [(0.1, 4), (0.3, 14), (0.5, 20)])
def test_the_trust_horizon_ends_where_the_upper_bound_first_passes_tau(tau, expected):
    real = walks(windows=2000, per_episode=1)
    spread = real.observation[:, 1:].std(axis=0)
    wrong = real.observation.copy()
    wrong[:, 1:] += spread * 0.0211 * np.arange(1, 21)[None, :, None]
    curve = horizon_error_curve(real, with_observation(real, wrong))
    assert trust_horizon(curve, tau) == expected
    back = replace(curve, upper=np.r_[0.1, 0.2, 0.9, np.zeros(17)])
    assert trust_horizon(back) == 2  # what comes after the first crossing does not count


def test_steps_after_the_real_end_do_not_count_and_the_alive_share_says_so():
    real = walks(windows=400, per_episode=4)
    length = np.where(np.arange(400) % 4 == 0, 5, 20)
    real = ending_at(real, length)
    rubbish = real.observation.copy()
    rubbish[np.arange(400) % 4 == 0, 6:] = 1e9
    imagined = replace(with_observation(real, rubbish), valid=np.ones_like(real.valid), terminated=~real.valid & False)
    curve = horizon_error_curve(real, imagined)
    np.testing.assert_array_equal(curve.error, 0)
    np.testing.assert_array_equal(curve.alive, np.r_[np.ones(5), np.full(15, 0.75)])


def test_easy_survivors_do_not_lend_their_ease_to_the_climatology():
    """Survivors far out are compared with the spread of survivors, so the curve does not fall by itself."""
    generator = np.random.default_rng(3)
    real = walks(windows=2000, per_episode=1, dims=1, seed=3)
    calm = real.observation * np.where(np.arange(2000) % 2 == 0, 0.01, 1.0)[:, None, None]
    real = ending_at(with_observation(real, calm), np.where(np.arange(2000) % 2 == 0, 20, 5))
    other = generator.permutation(np.flatnonzero(np.arange(2000) % 2 == 0))
    imagined = real.observation.copy()
    imagined[::2] = real.observation[other]
    imagined[1::2] = real.observation[1::2][generator.permutation(1000)]
    curve = horizon_error_curve(real, with_observation(real, imagined), resamples=2)
    np.testing.assert_allclose(curve.error, np.sqrt(2), rtol=0.1)


def test_a_world_that_ends_too_early_is_not_trusted_beyond():
    real = walks()
    curve = horizon_error_curve(real, ending_at(real, np.full(400, 3)))
    np.testing.assert_array_equal(curve.error[:3], 0)
    assert np.isnan(curve.error[3:]).all()
    assert trust_horizon(curve) == 3


@pytest.mark.parametrize(("share", "expected"), [(0.2, 20), (0.3, 5)])
def test_trust_ends_where_too_much_of_what_lives_in_reality_has_ended_in_the_world(share, expected):
    real = walks()
    length = np.where(np.arange(400) % 10 < 10 * share, 5, 20)
    assert trust_horizon(horizon_error_curve(real, ending_at(real, length))) == expected


def test_where_a_world_stopped_is_no_error_of_its_states():
    """It may be ten deviations from all that lives on; one window of 400 must not end trust by itself."""
    real = walks(dims=1)
    stopped, spread = real.observation.copy(), real.observation[:, 1:].std(axis=0)
    stopped[7, 2:] += 30 * spread[-1]
    one = horizon_error_curve(real, ending_at(with_observation(real, stopped), np.where(np.arange(400) == 7, 1, 20)))
    np.testing.assert_array_equal(one.error, 0)
    assert trust_horizon(one) == 20
    running_on = horizon_error_curve(real, with_observation(real, stopped))
    assert running_on.error[1:].min() > 1


def test_copies_are_averaged_while_they_run():
    copies = np.arange(2 * 4, dtype=float).reshape(1, 2, 4, 1)
    runs = np.array([[[True, True, False], [True, False, False]]])
    mean, some = mean_while_running(copies, runs)
    np.testing.assert_array_equal(mean[0, :, 0], [2, 3, 2, 2])
    np.testing.assert_array_equal(some, [[True, True, False]])


def test_a_lead_with_too_little_reality_is_unknown_and_ends_trust():
    real = ending_at(walks(), np.where(np.arange(400) < 9, 20, 8))
    curve = horizon_error_curve(real, real)
    assert np.isfinite(curve.error[:8]).all()
    assert np.isnan(curve.error[8:]).all()
    assert trust_horizon(curve) == 8
    assert np.isnan(curve.at(50))


def test_a_dimension_that_never_varies_is_left_out():
    real = walks()
    constant = real.observation.copy()
    constant[..., 1] = 7.0
    wrong = constant.copy()
    wrong[..., 1] = 8.0
    curve = horizon_error_curve(with_observation(real, constant), with_observation(real, wrong))
    np.testing.assert_array_equal(curve.error, 0)


def test_intervals_come_from_episodes_and_are_wider_than_from_transitions():
    """Windows of one episode share their error, so treating them as independent claims a precision nobody has."""
    real = walks(windows=800, per_episode=20)
    generator = np.random.default_rng(5)
    shared = np.repeat(generator.normal(size=(40, 1, 3)), 20, axis=0) * real.observation.std(axis=0)
    imagined = with_observation(real, real.observation + 0.3 * shared)
    honest = horizon_error_curve(real, imagined)
    naive = horizon_error_curve(replace(real, unit=np.arange(800)), replace(imagined, unit=np.arange(800)))
    np.testing.assert_allclose(honest.error, naive.error)
    assert np.all(honest.upper - honest.lower > 2 * (naive.upper - naive.lower))


def test_the_upper_bound_holds_in_about_nineteen_of_twenty_repetitions():
    truth = 0.5 * np.sqrt(0.9**2 + 0.3**2)
    generator = np.random.default_rng(11)
    held = 0
    for repetition in range(120):
        real = walks(windows=240, per_episode=4, steps=1, dims=1, seed=100 + repetition)
        spread = np.sqrt(2)
        shared = np.repeat(generator.normal(size=(60, 1, 1)), 4, axis=0) * 0.9
        noise = shared + 0.3 * generator.normal(size=(240, 1, 1))
        imagined = with_observation(real, real.observation + 0.5 * spread * noise)
        held += horizon_error_curve(real, imagined, resamples=200).upper[0] >= truth
    assert held >= 105  # 114 are expected; percentile intervals of 60 episodes are a little short


def test_the_same_traces_give_the_same_interval():
    real, other = walks(), walks(seed=1)
    one, two = horizon_error_curve(real, other), horizon_error_curve(real, other)
    np.testing.assert_array_equal(one.upper, two.upper)
    assert unit_weights(7).sum(axis=1).tolist() == [7.0] * 500


def test_autoreset_frames_are_refused():
    real = walks()
    terminated = real.terminated.copy()
    terminated[5, 3] = True
    with pytest.raises(InvalidInput, match="window 5 goes on after its end at step 3: these are autoreset frames"):
        replace(real, terminated=terminated)
    with pytest.raises(InvalidInput, match="autoreset frames"):
        replace(real, truncated=terminated)


def test_windows_with_gaps_or_misfit_shapes_or_numbers_that_are_none_are_refused():
    real = walks()
    gap = real.valid.copy()
    gap[0, 2] = False
    with pytest.raises(InvalidInput, match="gap"):
        replace(real, valid=gap)
    with pytest.raises(InvalidInput, match=r"reward: must be \(windows, steps\)"):
        replace(real, reward=np.zeros((400, 21)))
    broken = real.observation.copy()
    broken[0, 1] = np.nan
    with pytest.raises(InvalidInput, match="not finite"):
        with_observation(real, broken)
    with pytest.raises(InvalidInput, match="the real traces' windows"):
        horizon_error_curve(real, walks(windows=396))


def test_leaves_become_dimensions_in_order():
    leaves = {"a": np.ones((2, 3, 4), np.float32), "b": np.full((2, 3), 2, np.int64)}
    found = matrix(leaves, lead=2)
    assert (found.shape, found.dtype) == ((2, 3, 5), np.float64)
    assert found[0, 0].tolist() == [1, 1, 1, 1, 2]
