"""The figures of an evaluation, on data whose answers are known."""

import numpy as np
import pytest
from toy import Toy, ToyConfig, toy_spec

from simservice.data.episodes import Dataset
from simservice.errors import InvalidInput
from simservice.training.evaluate import evaluate, evaluate_on, termination_score
from simservice.training.windows import cut_windows, forecast, nrmse, spread
from simservice.types import Episode, Provenance

GROWTH, PUSH = 1.01, 0.1


def toy_episodes(count=6, length=60, growth=GROWTH, noise=0.0, seed=0):
    """Exactly what the toy world does, from reality's side."""
    chance = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        action = chance.integers(3, size=length)
        rows = [chance.uniform(-0.5, 0.5, 4)]
        for acted in action:
            rows.append(rows[-1] * growth + PUSH * (acted - 1.0) + noise * chance.normal(size=4))
        seen = np.stack(rows).astype(np.float32)
        made.append(
            Episode(
                observation={"observation": seen},
                action={"action": action.astype(np.int64)},
                reward=seen[1:].sum(-1).astype(np.float64),
                terminated=False,
                truncated=True,
            )
        )
    return made


def toy(**changes):
    return Toy(toy_spec(), ToyConfig(growth=GROWTH, push=PUSH, bound=1e6, **changes))


def test_a_perfect_world_has_no_error_and_full_trust():
    found = evaluate(toy(), toy_episodes(seed=1), toy_episodes())
    assert [error.world < 1e-5 for error in found.errors.values()] == [True] * 5
    assert found.errors[10].persistence > 0.1
    assert found.errors[10].linear < 1e-2
    assert found.reward_r2 == pytest.approx(1.0, abs=1e-6)
    assert found.trust_horizon_steps == 50


def test_a_wrong_world_is_wrong_by_as_much_as_it_is():
    real, world = toy_episodes(seed=1), Toy(toy_spec(), ToyConfig(growth=1.05, push=PUSH, bound=1e6))
    windows, scale = cut_windows(real, 5, 50), spread(real)
    expected = ((1.05 - GROWTH) * windows.truth[:, 0] / scale) ** 2
    assert nrmse(forecast(world, windows)[0], windows, scale)[0] == pytest.approx(np.sqrt(expected.mean()), rel=1e-3)


def test_the_forecast_is_the_mean_over_copies_that_differ():
    world = toy(noise=0.3)
    windows = cut_windows(toy_episodes(), 3, 40)
    one, _ = forecast(world, windows, copies=1)
    many, rollout = forecast(world, windows, copies=64)
    assert rollout.reward.shape == (40 * 64, 3)
    error = [np.abs(guess - windows.truth)[:, 1].mean() for guess in (one, many)]
    assert error[1] < 0.3 * error[0]


def test_windows_end_with_their_episode():
    windows = cut_windows(toy_episodes(count=2, length=8), 5, 1000)
    assert len(windows) == 16
    assert windows.valid.sum(axis=1).tolist() == [5, 5, 5, 5, 4, 3, 2, 1] * 2
    assert windows.truncated.sum() == 2 * 5  # the last step lies in five windows of each episode
    assert (windows.truth[7, 1:] == windows.truth[7, 1]).all()


def test_leads_beyond_every_episode_are_unknown():
    found = evaluate(toy(), toy_episodes(length=12, seed=1), toy_episodes(length=12))
    assert found.errors[25].windows == 0 and np.isnan(found.errors[25].world)
    assert "25" not in found.figures()["k_step_nrmse"]


def test_termination_scores_count_hits_misses_and_false_alarms():
    true = np.array([True, True, True, False, False, False, False, False, False, False])
    said = np.array([0.9, 0.8, 0.2, 0.6, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0])
    score = termination_score(true, said)
    assert score.base_rate == pytest.approx(0.3)
    assert (score.precision, score.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert score.average_precision == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert score.calibration_error == pytest.approx((0.1 + 0.2 + 0.8 + 0.6 + 0.1) / 10)


def test_termination_scores_without_an_end_are_unknown():
    score = termination_score(np.zeros(5, bool), np.zeros(5))
    assert score.base_rate == 0 and np.isnan(score.recall) and np.isnan(score.precision)


def test_a_world_is_not_tested_on_what_it_was_trained_on():
    world = toy()
    episodes = toy_episodes(count=10)
    dataset = Dataset(
        episodes=tuple(episodes),
        observation_space=world.spec.observation_space,
        action_space=world.spec.action_space,
        hash="abc",
    )
    assert evaluate_on(world, Provenance(dataset_hash="abc"), dataset).episodes == 2
    assert evaluate_on(world, Provenance(dataset_hash="xyz"), dataset).episodes == 5


def test_a_dataset_of_other_spaces_is_refused():
    world = toy()
    dataset = Dataset(
        episodes=tuple(toy_episodes()),
        observation_space=world.spec.observation_space,
        action_space=world.spec.observation_space,
    )
    with pytest.raises(InvalidInput, match="action_space"):
        evaluate_on(world, Provenance(), dataset)
