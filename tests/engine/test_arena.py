"""Rows of lanes and who is free."""

import numpy as np
import pytest
import torch
from toy import Toy, toy_spec

from simservice.engine.arena import Arena
from simservice.errors import CapacityExhausted


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


def test_scatter_writes_what_gather_reads_and_clear_leaves_nothing(arena):
    index = arena.index(np.array([5, 2]))
    rows = {"x": torch.arange(8, dtype=torch.float64).view(2, 4)}
    arena.scatter(index, rows)
    assert torch.equal(arena.gather(index)["x"], rows["x"])
    assert arena.rows["x"][2].tolist() == [4, 5, 6, 7]
    arena.clear(np.array([5]))
    assert arena.rows["x"][5].tolist() == [0, 0, 0, 0]
    assert arena.rows["x"][2].tolist() == [4, 5, 6, 7]


def test_a_lane_weighs_the_bytes_of_its_row(arena):
    assert arena.lane_bytes == 4 * 8
