"""Columns that are cosine and sine of an angle: found, and kept on their circle."""

import numpy as np
import pytest
import torch

from simservice.worlds.circles import Circles, partners

FLOATS = torch.ones(5, dtype=torch.bool)


def recorded(rows=200, seed=0):
    """Two angles and a speed: sine and cosine of one around the speed, then cosine and sine of the other."""
    one, other, speed = np.random.default_rng(seed).uniform(-1, 1, (3, rows))
    columns = [np.sin(one), speed, np.cos(one), np.cos(3 * other), np.sin(3 * other)]
    return torch.from_numpy(np.stack(columns, 1).astype(np.float32))


def test_pairs_are_found_wherever_they_stand():
    assert partners(recorded(), FLOATS).tolist() == [2, 1, 0, 4, 3]


@pytest.mark.parametrize(
    "rows",
    [
        recorded() + 1e-3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0)),
        recorded() * 2,
        recorded(rows=2),
        torch.tensor([[0.6, 0.8, 0.0, 0.0, 1.0]]).repeat(50, 1),
        torch.rand(200, 5, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["noisy sensors", "another radius", "too few rows", "constants", "anything"],
)
def test_what_is_no_unit_circle_is_left_alone(rows):
    assert partners(rows, FLOATS).tolist() == [0, 1, 2, 3, 4]


def test_categories_are_no_angles():
    hot = torch.eye(2)[torch.arange(50) % 2]
    assert partners(hot, torch.zeros(2, dtype=torch.bool)).tolist() == [0, 1]


def test_states_are_brought_back_to_their_circle_in_the_direction_they_have():
    circles = Circles(5)
    circles.fit(recorded(), FLOATS)
    strayed = recorded(seed=1) * torch.tensor([1.3, 5.0, 1.3, 0.4, 0.4])
    back = circles(strayed)
    assert torch.allclose(back, recorded(seed=1) * torch.tensor([1.0, 5.0, 1.0, 1.0, 1.0]), atol=1e-6)
    assert circles(torch.zeros(16, 5)).isfinite().all()


def test_circles_come_back_with_the_weights():
    fitted, again = Circles(5), Circles(5)
    fitted.fit(recorded(), FLOATS)
    again.load_state_dict(fitted.state_dict())
    strayed = recorded(seed=1) * 1.5
    assert torch.equal(again(strayed), fitted(strayed))
    assert not torch.equal(again(strayed), strayed)


def test_without_a_circle_states_are_untouched():
    rows = torch.rand(16, 5)
    assert torch.equal(Circles(5)(rows), rows)
