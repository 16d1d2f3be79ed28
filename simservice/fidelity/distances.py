"""Whether real and imagined steps are of one distribution: energy distance, and a classifier that tries to tell.

One step of each episode, and never two: tuples of one episode are not independent, and a classifier that has seen an
episode's steps in training knows the others by heart.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import betaincinv

from simservice.errors import InvalidInput
from simservice.fidelity.bootstrap import bounds, unit_weights
from simservice.fidelity.metric import UNKNOWN, Score, metric
from simservice.fidelity.traces import Traces
from simservice.types import Array

MOST_UNITS = 500
LEAST_UNITS = 20
FOLDS = 5
CONVENTION = "of (state, action, change), one step of each episode"


def tuples(traces: Traces, seed: int = 0) -> tuple[Array, Array]:
    """(U, K) one (state, action, change) of each episode, drawn at random, and the episodes (U,)."""
    window, step = np.nonzero(traces.valid)
    # Ties between windows fall by what both sides share, their actions and starts, and not by the order of windows.
    generator = np.random.default_rng(seed)
    luck = generator.random((int(traces.unit.max()) + 1, traces.horizon)) if len(traces.unit) else np.zeros((0, 0))
    first = traces.action[window, 0, 0] if traces.action is not None else traces.observation[window, 0, 0]
    order = np.lexsort((first, luck[traces.unit[window], step], traces.unit[window]))
    units, chosen = np.unique(traces.unit[window][order], return_index=True)
    window, step = window[order][chosen], step[order][chosen]
    state = traces.observation[window, step]
    parts = [state, traces.observation[window, step + 1] - state]
    if traces.action is not None:
        parts.append(traces.action[window, step])
    return np.concatenate(parts, axis=1)[:MOST_UNITS], units[:MOST_UNITS]


def energy_distance(real: Traces, imagined: Traces) -> Score:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, in standard deviations of reality; compare it with its noise floor."""
    truths, dreams = tuples(real)[0], tuples(imagined)[0]
    if min(len(truths), len(dreams)) < LEAST_UNITS:
        return UNKNOWN
    scale = truths.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    truths, dreams = truths / scale, dreams / scale
    between, within, inside = cdist(truths, dreams), cdist(truths, truths), cdist(dreams, dreams)
    value = float(2 * between.mean() - within.mean() - inside.mean())
    # Paired episodes are drawn together, so that what two sides share does not count as their difference.
    paired = len(truths) == len(dreams) and np.array_equal(tuples(real)[1], tuples(imagined)[1])
    one = unit_weights(len(truths), 200) / len(truths)
    other = one if paired else unit_weights(len(dreams), 200, seed=1) / len(dreams)
    resampled = (
        2 * np.einsum("ri,ij,rj->r", one, between, other, optimize=True)
        - np.einsum("ri,ij,rj->r", one, within, one, optimize=True)
        - np.einsum("ri,ij,rj->r", other, inside, other, optimize=True)
    )
    return Score(value, *bounds(resampled, value), min(len(truths), len(dreams)))


def c2st(features: Array, imagined: Array, unit: Array, *, seed: int = 0) -> Score:
    """Held-out accuracy of a classifier of rows (N, K) into real and imagined (N,) bool, over folds of whole episodes.

    The interval is binomial over episodes. Raises InvalidInput for several rows of one episode and side: split at
    random they tell on each other, and identical data reached an accuracy of 0.675.
    """
    if len(np.unique(np.stack([unit, imagined], axis=1), axis=0)) != len(unit):
        raise InvalidInput("unit", "has several rows on one side; a classifier test takes one step of each episode")
    units, place = np.unique(unit, return_inverse=True)
    if len(units) < LEAST_UNITS or imagined.all() or not imagined.any():
        return UNKNOWN
    fold = np.random.default_rng(seed).permutation(len(units))[place] % FOLDS
    spread = features.std(axis=0)
    x = (features - features.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    first, second = np.triu_indices(x.shape[1])
    x = np.concatenate([np.ones((len(x), 1)), x, np.clip(x[:, first] * x[:, second], -10, 10)], axis=1)
    target = np.where(imagined, 1.0, -1.0)
    correct = np.zeros(len(x))
    for number in range(FOLDS):
        known = fold != number
        gram = x[known].T @ x[known] + 1.0 * np.eye(x.shape[1])
        said = x[~known] @ np.linalg.solve(gram, x[known].T @ target[known])
        # No opinion is half right: equal rows on both sides must not be decided by rounding.
        correct[~known] = np.where(np.abs(said) < 1e-9, 0.5, said * target[~known] > 0)
    value = float(correct.mean())
    hits, misses = value * len(units), (1.0 - value) * len(units)
    low = float(betaincinv(hits, misses + 1.0, 0.025)) if hits > 0 else 0.0  # Clopper and Pearson's
    high = float(betaincinv(hits + 1.0, misses, 0.975)) if misses > 0 else 1.0
    return Score(value, low, high, len(units))


def classifier_accuracy(real: Traces, imagined: Traces) -> Score:
    """See c2st; 0.5 is what nobody can tell apart."""
    (truths, one), (dreams, other) = tuples(real), tuples(imagined)
    labels = np.r_[np.zeros(len(truths), dtype=bool), np.ones(len(dreams), dtype=bool)]
    return c2st(np.concatenate([truths, dreams]), labels, np.r_[one, other])


@metric(
    "energy_distance_ratio",
    level="L3",
    evidence="windows",
    unit="episode",
    perfect=0.0,
    convention=f"energy distance {CONVENTION}, in standard deviations of reality",
    floor="halves",
)
def energy_distance_ratio(real: Traces, imagined: Traces) -> Score:
    """See energy_distance."""
    return energy_distance(real, imagined)


@metric(
    "c2st_accuracy_ratio",
    level="L3",
    evidence="windows",
    unit="episode",
    perfect=0.5,
    convention=f"held-out accuracy of a quadratic classifier {CONVENTION}; folds of episodes; binomial over episodes",
    floor="halves",
)
def c2st_accuracy_ratio(real: Traces, imagined: Traces) -> Score:
    """See c2st."""
    return classifier_accuracy(real, imagined)
