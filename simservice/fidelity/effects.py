"""Whether the world obeys actions: two ways of acting from one start must differ in it as they do in reality."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simservice.errors import InvalidInput
from simservice.fidelity.bootstrap import bounds, unit_weights
from simservice.fidelity.metric import UNKNOWN, Score, metric
from simservice.fidelity.traces import Traces, check_paired, per_unit
from simservice.types import Array

CONVENTION = "difference of states that two action sequences from one start make, at the last step both have"


def _effects(real: Traces, imagined: Traces) -> tuple[Array, Array, Array] | None:
    """Real and imagined differences (P, D) in spreads of the real ones, and units (P,); None without two units."""
    check_paired(real, imagined)
    if real.pair is None:
        return None
    order = np.argsort(real.pair, kind="stable")
    numbers, first, count = np.unique(real.pair[order], return_index=True, return_counts=True)
    if np.any(count > 2):
        raise InvalidInput("pair", f"number {numbers[count > 2][0]} has more than two windows")
    first = first[count == 2]
    one, other = order[first], order[first + 1]
    if np.any(real.observation[one, 0] != real.observation[other, 0]):
        raise InvalidInput("pair", "has windows of different starts; an effect of actions needs one start")
    steps = np.minimum(real.valid[one].sum(axis=1), real.valid[other].sum(axis=1))
    one, other, steps = one[steps > 0], other[steps > 0], steps[steps > 0]
    if len(np.unique(real.unit[one])) < 2:
        return None
    held = imagined.held()
    truth = real.observation[one, steps] - real.observation[other, steps]
    dream = held[one, steps] - held[other, steps]
    scale = np.sqrt(np.mean(truth**2, axis=0))
    varies = scale > 1e-9
    if not varies.any():
        return None
    return truth[:, varies] / scale[varies], dream[:, varies] / scale[varies], real.unit[one]


def _measured(real: Traces, imagined: Traces, finish: Callable[[Array], Array]) -> Score:
    found = _effects(real, imagined)
    if found is None:
        return UNKNOWN
    truth, dream, unit = found
    products = np.stack([(truth * dream).sum(axis=1), (truth**2).sum(axis=1), (dream**2).sum(axis=1)], axis=1)
    sums = per_unit(unit, products)
    value = float(finish(sums.sum(axis=0, keepdims=True))[0])
    return Score(value, *bounds(finish(unit_weights(len(sums)) @ sums), value), len(sums))


def action_effect_slope(real: Traces, imagined: Traces) -> Score:
    """How large imagined effects of actions are, in real ones: 1 is faithful, 0 a world that ignores its agent."""
    return _measured(real, imagined, lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1e-300))


def action_effect_correlation(real: Traces, imagined: Traces) -> Score:
    """Whether they point the same way, about 0; an effect of nothing at all correlates with nothing."""
    return _measured(real, imagined, lambda sums: sums[:, 0] / np.sqrt(np.maximum(sums[:, 1] * sums[:, 2], 1e-300)))


for _name, _measure in (
    ("action_effect_slope_ratio", action_effect_slope),
    ("action_effect_correlation", action_effect_correlation),
):
    metric(_name, level="L4", evidence="windows", unit="episode", perfect=1.0, convention=CONVENTION)(_measure)
