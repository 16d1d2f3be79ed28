"""Who joins a tick and how a batch is cut: integers only."""

from dataclasses import dataclass

import numpy as np
import pytest

from simservice.engine.batching import alike, choose, cut, pad


@dataclass(eq=False)
class Waiting:
    lanes: np.ndarray


def waiting(*lanes):
    return Waiting(np.array(lanes))


def test_requests_of_different_lanes_share_a_tick():
    requests = [waiting(0, 1), waiting(2), waiting(5, 7)]
    assert choose(requests, 8) == (requests, [])


def test_a_lane_joins_a_tick_once_and_its_requests_keep_their_order():
    first, second, third, other = waiting(0, 1), waiting(1), waiting(0, 1), waiting(3)
    chosen, left = choose([first, second, third, other], 4)
    assert (chosen, left) == ([first, other], [second, third])
    chosen, left = choose(left, 4)
    assert (chosen, left) == ([second], [third])


def test_a_request_that_waits_holds_its_lanes_against_later_ones():
    first, blocked, later = waiting(0), waiting(0, 1), waiting(1)
    assert choose([first, blocked, later], 2) == ([first], [blocked, later])


@pytest.mark.parametrize(
    ("count", "pieces"),
    [
        (0, []),
        (1, [(0, 1, 16)]),
        (16, [(0, 16, 16)]),
        (17, [(0, 17, 64)]),
        (64, [(0, 64, 64)]),
        (128, [(0, 64, 64), (64, 128, 64)]),
        (65, [(0, 64, 64), (64, 65, 16)]),
        (200, [(0, 64, 64), (64, 128, 64), (128, 192, 64), (192, 200, 16)]),
    ],
)
def test_a_batch_is_cut_into_prepared_sizes(count, pieces):
    assert cut(count, (16, 64)) == tuple(pieces)


def test_padding_names_the_scratch_lane_and_a_full_batch_needs_none():
    assert pad(np.array([3, 1]), 4, 9).tolist() == [3, 1, 9, 9]
    full = np.array([3, 1])
    assert pad(full, 2, 9) is full


def test_the_largest_group_of_sizes_that_round_alike_is_used():
    assert alike([[16, 64], [256]]) == (16, 64)
    assert alike([[16], [64], [256]]) == (256,)
    assert alike([[16, 256], [64, 1024]]) == (64, 1024)
