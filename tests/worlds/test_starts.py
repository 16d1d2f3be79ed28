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


def test_draws_can_hardly_be_told_from_fresh_resets():
    """Classifier two-sample test by nearest neighbours: the area under the curve stays near one half."""
    new = drawn(fitted(BOX, [{"o": row} for row in cart_pole_starts(130)]), 1000).numpy()
    real = cart_pole_starts(1000, seed=1)
    rows, labels = np.concatenate([new, real]), np.repeat([0, 1], 1000)
    order = np.random.default_rng(2).permutation(2000)
    rows, labels = rows[order], labels[order]
    near = torch.cdist(torch.from_numpy(rows[1000:]), torch.from_numpy(rows[:1000])).topk(15, largest=False).indices
    score = labels[:1000][near.numpy()].mean(1)
    area = stats.mannwhitneyu(score[labels[1000:] == 1], score[labels[1000:] == 0]).statistic
    area /= (labels[1000:] == 1).sum() * (labels[1000:] == 0).sum()
    assert area <= 0.6


def test_constant_columns_stay_constant_and_related_ones_related():
    angle = np.random.default_rng(0).uniform(-np.pi, np.pi, 200)
    data = np.stack([np.cos(angle), np.sin(angle), np.full(200, 7.0), np.zeros(200)], 1).astype(np.float32)
    new = drawn(fitted(BOX, [{"o": row} for row in data]), 500)
    assert (new[:, 2] == 7).all() and (new[:, 3] == 0).all()
    radius = new[:, :2].norm(dim=1)
    assert ((radius - 1).abs() < 0.05).float().mean() > 0.95


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
