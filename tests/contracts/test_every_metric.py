"""What every registered metric keeps to, whoever wrote it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import simservice.fidelity  # noqa: F401  (registers the metrics)
from simservice.fidelity.metric import Metric, metrics
from simservice.fidelity.noise import noise_floor
from simservice.fidelity.traces import Traces

EVERY = pytest.mark.parametrize("metric", metrics().values(), ids=metrics().keys())


def traces(seed: int = 0, windows: int = 200, horizon: int = 100) -> Traces:
    """Episodes of a noisy pendulum-like system, some of which end on their way."""
    generator = np.random.default_rng(seed)
    observation = np.cumsum(generator.normal(size=(windows, horizon + 1, 2)), axis=1)
    observation -= observation[:, :1]
    length = np.where(generator.random(windows) < 0.2, generator.integers(1, horizon, windows), horizon)
    length[:10] = 1
    step = np.arange(horizon)
    return Traces(
        observation=observation,
        reward=generator.normal(size=(windows, horizon)),
        terminated=(step == length[:, None] - 1) & (length < horizon)[:, None],
        truncated=np.zeros((windows, horizon), dtype=bool),
        valid=step < length[:, None],
        unit=np.arange(windows) // 4,
        action=generator.normal(size=(windows, horizon, 1)),
        deviation=np.ones((windows, horizon, 2)),
        uncertainty=generator.random((windows, horizon)),
        termination_probability=((step == length[:, None] - 1) & (length < horizon)[:, None]).astype(float),
        success=generator.random(windows) < 0.5,
        pair=np.arange(windows) // 2,
        frames=frames(generator, windows, horizon),
        returns={f"policy {number}": generator.normal(10 * number, 5, 10) for number in range(9)},
        exploited=generator.normal(90, 5, 50),
        return_range=(0, 100),
    )


def frames(generator: np.random.Generator, windows: int, horizon: int) -> np.ndarray:
    """Noise in two frames a window, and the second again and again: nobody looks at those."""
    seen = generator.integers(0, 255, (windows, 2, 16, 16, 1)).astype(np.uint8)
    return seen[:, np.minimum(np.arange(horizon + 1), 1)]


def worse(real: Traces) -> Traces:
    """The same windows, badly imagined."""
    other = traces(seed=9)
    said = real.terminated.copy()
    said[:5, 0] = False
    return replace(
        real,
        observation=np.concatenate([real.observation[:, :1], 3.0 * other.observation[:, 1:]], axis=1),
        reward=real.reward + 1.0,
        terminated=said,
        valid=real.valid,
        uncertainty=np.ones_like(real.uncertainty) * 2.0,
        termination_probability=np.full_like(real.reward, 0.5),
        success=np.ones_like(real.success),
        frames=255 - real.frames,
        returns={
            name: real.returns[other] + 15 for name, other in zip(real.returns, reversed(real.returns), strict=True)
        },
        exploited=real.exploited + 30,
    )


@EVERY
def test_it_says_how_its_number_is_to_be_read(metric: Metric):
    assert metric.level in {f"L{n}" for n in range(8)}
    assert metric.evidence in {"windows", "steps", "returns"}
    assert metric.unit in {"episode", "policy"}
    assert metric.convention


@EVERY
def test_reality_itself_gets_the_perfect_score(metric: Metric):
    score = metric.measure(traces(), traces())
    if np.isnan(metric.perfect):
        pytest.skip("what is best depends on reality's own noise")
    perfect = 100 if metric.perfect == float("inf") else metric.perfect
    assert score.value == pytest.approx(perfect, abs=1e-3)


@EVERY
def test_a_bad_world_is_further_from_perfect_than_a_good_one(metric: Metric):
    real = traces()
    assert metric.measure(real, worse(real)).value != pytest.approx(metric.measure(real, real).value)


@EVERY
def test_the_interval_holds_the_value_and_has_independent_units_behind_it(metric: Metric):
    score = metric.measure(traces(), worse(traces()))
    assert score.lower <= score.value <= score.upper
    assert 1 < score.units <= 100


@EVERY
def test_the_order_of_windows_does_not_matter(metric: Metric):
    real = traces()
    order = np.random.default_rng(0).permutation(real.windows)

    def shuffled(one: Traces) -> Traces:
        return one[order]

    straight, mixed = metric.measure(real, worse(real)), metric.measure(shuffled(real), shuffled(worse(real)))
    assert straight.value == pytest.approx(mixed.value)


@EVERY
def test_it_changes_nothing_it_is_given(metric: Metric):
    real = traces()
    before = real.observation.copy()
    metric.measure(real, worse(real))
    np.testing.assert_array_equal(real.observation, before)


@EVERY
def test_where_nothing_can_be_said_it_says_unknown(metric: Metric):
    real = traces()
    step = np.arange(real.horizon)
    empty = replace(
        real,
        valid=(step < 0) | (np.arange(real.windows)[:, None] + step < 1),  # one single step in all
        terminated=real.terminated & False,
        success=None,
        exploited=None,
        returns={},
    )
    score = metric.measure(empty, empty)
    assert np.isnan(score.value) or score.value in (0.0, metric.perfect)
    assert not score.value > 0


@EVERY
def test_it_has_a_floor_of_real_against_real_or_is_divided_by_realitys_spread(metric: Metric):
    floor = noise_floor(metric, traces(horizon=5), splits=5)
    if metric.floor == "climatology":
        assert floor.splits == 0
        assert np.isnan(floor.ratio(metric, 1.0))
        return
    assert 0 <= floor.median <= floor.warn <= floor.alert
    assert floor.alert >= 2 * floor.median
    if floor.median > 0:
        assert floor.ratio(metric, metric.perfect + floor.median) == pytest.approx(1.0)
