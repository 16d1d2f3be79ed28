"""Starts that are new and yet like the recorded ones."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats

from simservice.types import Episode
from simservice.worlds.codec import Codec
from simservice.worlds.noise import lane_draws
from simservice.worlds.starts import Starts


def episode(first):
    """An episode of one step that begins at `first` (leaves)."""
    observation = {path: np.stack([value, value]) for path, value in first.items()}
    return Episode(observation, {"action": np.zeros((1,), np.int64)}, np.zeros(1), True, False)


def fitted(space, firsts):
    codec = Codec(space, "o")
    starts = Starts(codec)
    starts.fit([episode(first) for first in firsts], codec)
    return starts


def drawn(starts, count):
    return starts(lane_draws(Starts.draws, torch.arange(count), torch.zeros(count, dtype=torch.int64), "init"))


def cart_pole_starts(count, seed=0):
    return np.random.default_rng(seed).uniform(-0.05, 0.05, (count, 4)).astype(np.float32)


BOX = spaces.Box(-np.inf, np.inf, (4,), np.float32)


def test_draws_are_new_inside_the_data_and_unlike_a_bootstrap():
    data = cart_pole_starts(130)
    new = drawn(fitted(BOX, [{"o": row} for row in data]), 2000)
    nearest = torch.cdist(new, torch.from_numpy(data)).min(1).values
    assert (nearest > 0).float().mean() >= 0.9
    assert (new >= torch.from_numpy(data.min(0))).all() and (new <= torch.from_numpy(data.max(0))).all()


def pendulum_starts(count, seed=0):
    chance = np.random.default_rng(seed)
    angle, speed = chance.uniform(-np.pi, np.pi, count), chance.uniform(-1, 1, count)
    return np.stack([np.cos(angle), np.sin(angle), speed], 1).astype(np.float32)


def acrobot_starts(count, seed=0):
    one, other, *speeds = np.random.default_rng(seed).uniform(-0.1, 0.1, (4, count))
    return np.stack([np.cos(one), np.sin(one), np.cos(other), np.sin(other), *speeds], 1).astype(np.float32)


@pytest.mark.parametrize("resets", [cart_pole_starts, pendulum_starts, acrobot_starts])
def test_draws_can_hardly_be_told_from_fresh_resets(resets):
    """Classifier two-sample test by nearest neighbours: the area under the curve stays near one half."""
    data, real = resets(130), resets(1000, seed=1)
    space = spaces.Box(-np.inf, np.inf, data.shape[1:], np.float32)
    new = drawn(fitted(space, [{"o": row} for row in data]), 1000).numpy()
    rows, labels = np.concatenate([new, real]) / real.std(0), np.repeat([0, 1], 1000)
    order = np.random.default_rng(2).permutation(2000)
    rows, labels = rows[order], labels[order]
    near = torch.cdist(torch.from_numpy(rows[1000:]), torch.from_numpy(rows[:1000])).topk(15, largest=False).indices
    score = labels[:1000][near.numpy()].mean(1)
    area = stats.mannwhitneyu(score[labels[1000:] == 1], score[labels[1000:] == 0]).statistic
    area /= (labels[1000:] == 1).sum() * (labels[1000:] == 0).sum()
    assert area <= 0.6


def test_constant_columns_stay_constant_and_related_ones_related():
    place = np.random.default_rng(0).uniform(-1, 1, 200)
    data = np.stack([place, place**2, np.full(200, 7.0), np.zeros(200)], 1).astype(np.float32)
    new = drawn(fitted(BOX, [{"o": row} for row in data]), 500)
    assert (new[:, 2] == 7).all() and (new[:, 3] == 0).all()
    assert ((new[:, 1] - new[:, 0] ** 2).abs() < 0.05).float().mean() > 0.95


@pytest.mark.parametrize("count", [3, 13, 200])
def test_angles_start_on_their_circle_and_where_angles_were_recorded(count):
    data = acrobot_starts(count)
    new = drawn(fitted(spaces.Box(-9, 9, (6,), np.float32), [{"o": row} for row in data]), 500)
    for first in (0, 2):
        assert torch.allclose(new[:, first : first + 2].norm(dim=1), torch.ones(500), atol=1e-6)
        assert (
            new[:, first + 1].min() >= data[:, first + 1].min() and new[:, first + 1].max() <= data[:, first + 1].max()
        )


def test_whole_numbers_are_drawn_as_recorded_with_floats_of_their_kind():
    space = spaces.Dict({"kind": spaces.Discrete(2), "place": spaces.Box(-9, 9, (1,), np.float32)})
    chance = np.random.default_rng(0)
    firsts = [
        {"o/kind": np.int64(i % 2), "o/place": (np.array([5.0 * (i % 2)]) + chance.uniform(0, 1, 1)).astype(np.float32)}
        for i in range(60)
    ]
    codec = Codec(space, "o")
    new = codec.decode(drawn(fitted(space, firsts), 400))
    assert set(new["o/kind"].tolist()) == {0, 1}
    assert ((new["o/place"][:, 0] >= 3) == (new["o/kind"] == 1)).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_recorded_starts_are_enough(count):
    data = cart_pole_starts(count)
    new = drawn(fitted(BOX, [{"o": row} for row in data]), 64)
    assert new.isfinite().all()
    if count == 1:
        assert (new == torch.from_numpy(data[0])).all()


def test_starts_come_back_from_their_rows():
    starts = fitted(BOX, [{"o": row} for row in cart_pole_starts(40)])
    again = Starts(Codec(BOX, "o"))
    again.put(starts.tensors())
    assert torch.equal(drawn(again, 100), drawn(starts, 100))


@pytest.mark.parametrize(
    "tensors",
    [{}, {"rows": torch.zeros(0, 4)}, {"rows": torch.zeros(3, 5)}, {"rows": torch.zeros(3, 4, dtype=torch.float64)}],
)
def test_rows_that_do_not_fit_are_refused(tensors):
    with pytest.raises(ValueError, match="rows"):
        Starts(Codec(BOX, "o")).put(tensors)


def test_very_many_starts_are_thinned_out_evenly():
    starts = fitted(BOX, [{"o": np.full(4, i, np.float32)} for i in range(5000)])
    assert starts.rows.shape == (2048, 4) and starts.rows[0, 0] == 0 and starts.rows[-1, 0] == 4999
