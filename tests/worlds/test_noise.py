"""The luck of a lane: its own, the same everywhere, and fair."""

import numpy as np
import pytest
import torch
from scipy import stats

from simservice.worlds.noise import _normals, _normals_tensor, _numbers_tensor, _plan, lane_draws
from simservice.worlds.world import Draw

DRAWS = {"member": Draw("uniform"), "delta": Draw("normal", (5,)), "start": Draw("uniform", (3,))}


def numbers(kind, seeds, steps, shape=(), call="step", name="a"):
    return lane_draws({name: Draw(kind, shape)}, torch.as_tensor(seeds), torch.as_tensor(steps), call)[name]


@pytest.mark.parametrize("width", range(1, 34))
def test_a_lanes_numbers_are_the_same_bits_at_every_position_of_every_width(width):
    seed, step = torch.tensor([2**62 + 12345]), torch.tensor([77])
    alone = lane_draws(DRAWS, seed, step, "step")
    others = torch.arange(width, dtype=torch.int64) * 1_000_003
    for position in range(width):
        seeds, steps = others.clone(), others % 91
        seeds[position], steps[position] = seed, step
        together = lane_draws(DRAWS, seeds, steps, "step")
        for name in DRAWS:
            assert torch.equal(together[name][position], alone[name][0]), (name, position)


def test_the_device_arithmetic_gives_the_same_bits_as_the_hosts():
    seed = torch.randint(-(2**63), 2**63 - 1, (700,), generator=torch.Generator().manual_seed(0))
    step = torch.arange(700)
    plan = _plan("step", tuple(DRAWS.items()))
    flat = _numbers_tensor(plan, seed, step)
    host = lane_draws(DRAWS, seed, step, "step")
    assert torch.equal(flat, torch.cat([host[name].reshape(-1) for name in plan.names]))


def test_draws_have_the_asked_shapes_in_float32():
    drawn = lane_draws(DRAWS, torch.arange(7), torch.zeros(7, dtype=torch.int64), "init")
    assert {name: tuple(value.shape) for name, value in drawn.items()} == {
        "member": (7,),
        "delta": (7, 5),
        "start": (7, 3),
    }
    assert all(value.dtype == torch.float32 for value in drawn.values())
    assert lane_draws({}, torch.arange(7), torch.arange(7), "step") == {}


def test_numbers_change_with_seed_step_call_and_name_and_with_nothing_else():
    base = numbers("uniform", [5], [9], (64,))
    assert torch.equal(base, numbers("uniform", [5], [9], (64,)))
    for other in (
        numbers("uniform", [6], [9], (64,)),
        numbers("uniform", [5], [10], (64,)),
        numbers("uniform", [5], [9], (64,), call="init"),
        numbers("uniform", [5], [9], (64,), name="b"),
    ):
        assert not (base == other).any()
    beside = lane_draws(
        {"b": Draw("normal", (3,)), "a": Draw("uniform", (64,))}, torch.tensor([5]), torch.tensor([9]), "step"
    )
    assert torch.equal(beside["a"], base)


def test_arguments_are_left_as_they_were():
    seed, step = torch.arange(9), torch.arange(9) * 3
    lane_draws(DRAWS, seed, step, "step")
    assert torch.equal(seed, torch.arange(9)) and torch.equal(step, torch.arange(9) * 3)


@pytest.mark.parametrize("axis", ["seed", "step", "element"])
def test_uniforms_are_uniform_along_every_axis(axis):
    count = 200_000
    line, zeros = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    if axis == "element":
        values = numbers("uniform", [3], [4], (count,))[0]
    else:
        values = numbers("uniform", line if axis == "seed" else zeros, zeros if axis == "seed" else line)
    assert values.min() >= 0 and values.max() < 1
    assert torch.equal(values * 2**24, (values * 2**24).round())
    assert stats.kstest(values.numpy(), "uniform").pvalue > 1e-3
    counts = np.bincount((values.numpy() * 256).astype(int), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-3
    pairs = np.bincount((values[:-1].numpy() * 16).astype(int) * 16 + (values[1:].numpy() * 16).astype(int))
    assert stats.chisquare(pairs).pvalue > 1e-3


@pytest.mark.parametrize("axis", ["seed", "step", "element"])
def test_normals_are_normal_along_every_axis(axis):
    count = 200_000
    line, zeros = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    if axis == "element":
        values = numbers("normal", [3], [4], (count,))[0].double().numpy()
    else:
        seeds, steps = (line, zeros) if axis == "seed" else (zeros, line)
        values = numbers("normal", seeds, steps).double().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(values.mean()) < 4 / count**0.5
    assert abs(values.std() - 1) < 4 / (2 * count) ** 0.5
    assert abs(stats.skew(values)) < 4 * (6 / count) ** 0.5
    assert abs(stats.kurtosis(values)) < 4 * (24 / count) ** 0.5
    assert 3.9 < np.abs(values).max() < 6.5


def test_neighbouring_seeds_steps_elements_and_calls_are_uncorrelated():
    seeds, steps = torch.meshgrid(torch.arange(300), torch.arange(300), indexing="ij")
    grid = numbers("normal", seeds.reshape(-1), steps.reshape(-1), (2,)).reshape(300, 300, 2).double()
    other = numbers("normal", seeds.reshape(-1), steps.reshape(-1), (2,), call="init").reshape(300, 300, 2).double()
    pairs = {
        "seed": (grid[:-1], grid[1:]),
        "step": (grid[:, :-1], grid[:, 1:]),
        "both": (grid[:-1, :-1], grid[1:, 1:]),
        "element": (grid[..., 0], grid[..., 1]),
        "call": (grid, other),
    }
    for name, (left, right) in pairs.items():
        for power in (1, 2):
            correlation = np.corrcoef((left**power).reshape(-1), (right**power).reshape(-1))[0, 1]
            assert abs(correlation) < 4.5 / left.numel() ** 0.5, (name, power)


def test_one_changed_seed_bit_changes_half_of_the_bits():
    seeds = torch.randint(0, 2**62, (4000,), generator=torch.Generator().manual_seed(1))
    zeros = torch.zeros_like(seeds)
    base = (numbers("uniform", seeds, zeros) * 2**24).long()
    for bit in range(0, 62, 3):
        changed = (numbers("uniform", seeds ^ (1 << bit), zeros) * 2**24).long()
        flips = sum(((base ^ changed) >> k & 1).float().mean().item() for k in range(24)) / 24
        assert abs(flips - 0.5) < 0.01, bit


def test_the_normal_quantile_is_accurate_up_to_its_outermost_words():
    low = np.unique(np.concatenate([2 ** np.arange(52), np.linspace(1, 2**52 - 1, 4001)]).astype(np.uint64))
    low = np.concatenate([np.zeros(1, dtype=np.uint64), low, np.array([2**52 - 1], dtype=np.uint64)])
    for sign in (0, 1):
        word = low | np.uint64(sign << 63)
        found = _normals(word)
        expected = -stats.norm.ppf((low + 0.5) * 2.0**-53) * (-1 if sign else 1)
        assert np.abs(found - expected).max() < 5e-6
        start, rise = _plan("step", ()).tensors(torch.device("cpu"))[1:]
        assert np.array_equal(_normals_tensor(torch.from_numpy(word.view(np.int64)), start, rise).numpy(), found)
