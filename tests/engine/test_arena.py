"""Rows of lanes and who is free."""

import numpy as np
import pytest
import torch
from toy import Toy, toy_spec

from simservice.engine.arena import Arena
from simservice.errors import CapacityExhausted
from simservice.worlds.world import Slot


@pytest.fixture
def arena():
    return Arena(Toy(toy_spec()), 8)


def test_the_lowest_free_lanes_are_given_and_come_back(arena):
    first = arena.allocate(3)
    second = arena.allocate(4)
    assert first.tolist() == [0, 1, 2]
    assert second.tolist() == [3, 4, 5, 6]
    arena.release(first)
    assert arena.allocate(2).tolist() == [0, 1]
    assert arena.in_use == 6
    arena.check()


def test_too_large_a_wish_takes_no_lane_and_says_how_many_there_are(arena):
    arena.allocate(6)
    with pytest.raises(CapacityExhausted, match="3 lanes were asked for, but 6 of 8 are in use"):
        arena.allocate(3)
    assert arena.in_use == 6
    assert len(arena.allocate(2)) == 2


def test_giving_back_a_free_lane_is_noticed(arena):
    lanes = arena.allocate(2)
    arena.release(lanes)
    with pytest.raises(AssertionError, match="free already"):
        arena.release(lanes)


@pytest.fixture(params=["numpy", "torch"])
def any_arena(request, arena):
    """As on the CPU, and as where numpy cannot reach the rows."""
    if request.param == "torch":
        arena._views = None
    return arena


def test_scatter_writes_what_gather_reads_and_clear_leaves_nothing(any_arena):
    arena = any_arena
    rows = {"x": torch.arange(12, dtype=torch.float64).view(3, 4)}
    arena.scatter(np.array([5, 2]), rows, 2)
    assert torch.equal(arena.gather(np.array([5, 2]))["x"], rows["x"][:2])
    assert torch.equal(arena.gather(np.array([2, 2]))["x"], rows["x"][[1, 1]])
    assert arena.rows["x"][2].tolist() == [4, 5, 6, 7]
    arena.clear(np.array([5]))
    assert arena.rows["x"][5].tolist() == [0, 0, 0, 0]
    assert arena.rows["x"][2].tolist() == [4, 5, 6, 7]


def test_neighbours_may_be_named_by_a_slice_and_what_was_gathered_is_a_copy(any_arena):
    arena = any_arena
    arena.scatter(slice(1, 3), {"x": torch.ones(2, 4, dtype=torch.float64)}, 2)
    gathered = arena.gather(slice(0, 4))["x"]
    assert gathered.sum(1).tolist() == [0, 4, 4, 0]
    gathered += 7
    assert arena.rows["x"][:4].sum(1).tolist() == [0, 4, 4, 0]


def test_neighbours_are_lent_as_they_lie_and_others_as_copies(arena):
    arena.scatter(slice(1, 3), {"x": torch.ones(2, 4, dtype=torch.float64)}, 2)
    lent, copied = arena.lend(slice(1, 3))["x"], arena.lend(np.array([2, 1]))["x"]
    assert lent.data_ptr() == arena.rows["x"][1:3].data_ptr()
    assert torch.equal(lent, copied)
    copied += 7
    assert arena.rows["x"][1:3].sum(1).tolist() == [4, 4]
    arena._views = None  # as on a device
    assert torch.equal(arena.lend(slice(1, 3))["x"], lent)
    assert arena.lend(slice(1, 3))["x"].data_ptr() != lent.data_ptr()


def test_neighbours_that_are_lent_again_are_seen_as_they_are_by_then(arena):
    where = slice(1, 3)
    first = arena.lend(where)
    first.pop("x")  # the borrower's own dict
    arena.scatter(where, {"x": torch.ones(2, 4, dtype=torch.float64)}, 2)
    assert arena.lend(where)["x"].sum(1).tolist() == [4, 4]
    assert arena.lend(slice(0, 2))["x"].sum(1).tolist() == [0, 4]
    assert arena.lend(where)["x"].sum(1).tolist() == [4, 4]


def test_rows_of_a_type_that_numpy_has_not_are_moved_by_torch():
    class Half(Toy):
        @property
        def slots(self):
            return {"x": Slot((4,), torch.bfloat16)}

    arena = Arena(Half(toy_spec()), 4)
    arena.scatter(np.array([3]), {"x": torch.ones(1, 4, dtype=torch.bfloat16)}, 1)
    assert arena.gather(slice(2, 4))["x"].sum(1).tolist() == [0, 4]


def test_a_lane_weighs_the_bytes_of_its_row(arena):
    assert arena.lane_bytes == 4 * 8
