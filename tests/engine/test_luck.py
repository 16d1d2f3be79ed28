"""Luck drawn ahead is the luck of each step."""

import numpy as np
import pytest
import torch
from toy import Toy, ToyConfig, toy_spec

from simservice.engine import luck
from simservice.engine.control import Control
from simservice.engine.luck import LuckAhead
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import Draw

DRAWS = {"change": Draw("normal", (3,)), "end": Draw("uniform")}
LANES, STEPS = 7, 20


@pytest.fixture
def control():
    made = Control(LANES)
    made.seed[:] = np.random.default_rng(0).integers(0, 2**62, LANES)
    made.counter[:] = [0, 5, 5, 100, 3, 0, 8]
    return made


def drawn(control, where):
    """As a step alone draws it."""
    seed, counter = torch.from_numpy(control.seed[where].copy()), torch.from_numpy(control.counter[where].copy())
    return {name: rows.numpy() for name, rows in lane_draws(DRAWS, seed, counter, "step").items()}


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for name, rows in wanted.items():
        np.testing.assert_array_equal(found[name], rows, err_msg=name)


@pytest.mark.parametrize("numbers", [1, 100, 2**14], ids=["a step at once", "a few steps at once", "all at once"])
@pytest.mark.parametrize("where", [slice(0, LANES), slice(2, 5), np.array([6, 0, 3, 6])], ids=["all", "some", "picked"])
def test_it_is_the_luck_of_each_step(control, monkeypatch, numbers, where):
    monkeypatch.setattr(luck, "NUMBERS", numbers)
    ahead = LuckAhead(control, DRAWS, "step", STEPS)
    for _ in range(STEPS):
        assert_same(ahead.take(where), drawn(control, where))
        control.counter += 1


@pytest.mark.parametrize("numbers", [1, 100, 2**14])
def test_lanes_that_rest_or_begin_anew_keep_their_own_luck(control, monkeypatch, numbers):
    monkeypatch.setattr(luck, "NUMBERS", numbers)
    ahead = LuckAhead(control, DRAWS, "step", STEPS)
    generator = np.random.default_rng(1)
    for _ in range(STEPS):
        assert_same(ahead.take(slice(0, LANES)), drawn(control, slice(0, LANES)))
        control.counter += generator.integers(0, 3, LANES)  # not stepped; stepped; stepped and begun


def test_draws_are_made_for_many_steps_at_once(control, monkeypatch):
    calls = []
    monkeypatch.setattr(luck, "lane_draws", lambda *words: calls.append(words) or lane_draws(*words))
    ahead = LuckAhead(control, DRAWS, "step", STEPS)
    for _ in range(STEPS):
        ahead.take(slice(0, LANES))
        control.counter += 1
    assert len(calls) == 1


@pytest.mark.parametrize(("lanes", "calls"), [(10, {"step", "init"}), (10_000, {"step"})])
def test_starts_are_drawn_ahead_where_that_is_little(lanes, calls):
    assert set(luck.luck_ahead(Control(lanes), Toy(toy_spec(), ToyConfig(noise=0.1)), STEPS)) == calls


def test_no_draws_are_no_luck(control):
    assert LuckAhead(control, {}, "explore", STEPS).take(slice(0, LANES)) == {}
