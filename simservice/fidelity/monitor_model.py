"""The monitor model: what the next step should be and how sure that is, fitted to reference data in closed form.

Apart from the served world on purpose: a weak served world sees no change at all. Knows trajectories as arrays only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from simservice.errors import InvalidInput
from simservice.fidelity.traces import Traces
from simservice.types import Array

FOLDS = 5  # members of the ensemble; each has not seen a fifth of the episodes
UNITS = 96  # random sigmoid features
PAIRS_UP_TO = 12  # inputs; beyond, products of pairs are left out
EXACTNESS = 1e-7  # of an observation's size: float32 rounds it so
REWARD_EXACTNESS = 1e-4  # of the reward's size: a reward that never varies must not be told from itself by rounding
SUREST = 7.0  # log-odds of an end beyond which nobody is surer
RIDGE = 1e-8  # per row: features are of size one, and deterministic worlds reward exactness
CHI_SQUARE_LOG_MEAN = -1.2704  # of one degree of freedom: the mean log of a squared residual is lower than log variance


@dataclass(frozen=True)
class Transitions:
    """Steps as rows, in the order of their windows."""

    observation: Array  # (N, D)
    action: Array  # (N, A)
    reward: Array  # (N,)
    terminated: Array  # (N,) bool
    following: Array  # (N, D)
    window: Array  # (N,) int, ascending
    unit: Array  # (N,) int, the episode

    @classmethod
    def of(cls, traces: Traces) -> Transitions:
        """The valid steps of traces that tell their actions."""
        if traces.action is None:
            raise InvalidInput("action", "the traces do not tell what was done; a monitor model needs it")
        window, step = np.nonzero(traces.valid)
        return cls(
            observation=traces.observation[window, step],
            action=traces.action[window, step],
            reward=traces.reward[window, step],
            terminated=traces.terminated[window, step],
            following=traces.observation[window, step + 1],
            window=window,
            unit=traces.unit[window],
        )


@dataclass(frozen=True)
class Features:
    """A fixed map of inputs to features: 1, the inputs, products of pairs, random sigmoid units."""

    mean: Array
    scale: Array
    weight: Array  # (inputs, UNITS)
    bias: Array

    @classmethod
    def fitted(cls, inputs: Array, seed: int, units: int = UNITS) -> Features:
        """Standardises by these inputs."""
        generator = np.random.default_rng(seed)
        spread = inputs.std(axis=0)
        return cls(
            mean=inputs.mean(axis=0),
            scale=np.where(spread > 1e-9, spread, 1.0),
            weight=generator.normal(size=(inputs.shape[1], units)) / np.sqrt(inputs.shape[1]),
            bias=generator.normal(size=units),
        )

    def __call__(self, inputs: Array) -> Array:
        """(N, F)."""
        x = np.clip((inputs - self.mean) / self.scale, -20.0, 20.0)
        parts = [np.ones((len(x), 1)), x]
        if x.shape[1] <= PAIRS_UP_TO:
            first, second = np.triu_indices(x.shape[1])
            parts.append(x[:, first] * x[:, second])
        bent = x @ self.weight + self.bias
        parts.append(bent / np.sqrt(1.0 + bent**2))  # a third of tanh's time, and as good
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class Regression:
    """An ensemble of ridge regressions and a regression of the log variance of what is left over."""

    members: Array  # (FOLDS, F, D) coefficients
    log_variance: Array  # (F, D) coefficients
    log_limits: Array  # (2, D): predicted log variances stay within what was seen
    floor: Array  # (D,) least variance

    def predict(self, features: Array) -> tuple[Array, Array]:
        """(N, D) means and standard deviations."""
        folds, count, dims = self.members.shape
        every = (features @ self.members.transpose(1, 0, 2).reshape(count, folds * dims)).reshape(-1, folds, dims)
        residual = np.exp(np.clip(features @ self.log_variance, self.log_limits[0], self.log_limits[1]))
        mean = every.mean(axis=1)
        variance = np.einsum("nkd,nkd->nd", every, every) / folds - mean**2 + residual
        return mean, np.sqrt(np.maximum(variance, self.floor))


def fit_regression(features: Array, target: Array, unit: Array, least: Array) -> tuple[Regression, Array, Array]:
    """The regression, and for each row the mean (N, D) and deviation said of it by the member that had not seen it.

    `least` (D,) is the deviation below which nothing is told apart.
    """
    fold = np.unique(unit, return_inverse=True)[1] % FOLDS
    centre = target.mean(axis=0)
    # What never varies is predicted as just that: fitted rounding explodes where reality leaves the known states.
    target = np.where(target.std(axis=0) > least, target - centre, 0.0)
    grams, moments = [], []
    for number in range(FOLDS):
        rows = features[fold == number]
        grams.append(rows.T @ rows)
        moments.append(rows.T @ target[fold == number])
    gram, moment = np.sum(grams, axis=0), np.sum(moments, axis=0)
    members = np.stack([_solve(gram - grams[k], moment - moments[k], len(target)) for k in range(FOLDS)])
    unseen = np.empty_like(target)
    for number in range(FOLDS):
        unseen[fold == number] = features[fold == number] @ members[number]
    residual = target - unseen
    members[:, 0] += centre  # the first feature is 1
    floor = np.maximum(least, 1e-12) ** 2
    logarithm = np.log(residual**2 + floor) - CHI_SQUARE_LOG_MEAN
    # Heavier shrinkage: this target is noise of a size of two, whatever the world.
    log_variance = _solve(gram, features.T @ logarithm, len(target), ridge=1e-3)
    said = features @ log_variance
    limits = np.quantile(said, [0.001, 0.999], axis=0)
    excess = np.mean(residual**2 / np.exp(np.clip(said, *limits)), axis=0)
    log_variance[0] += np.log(np.maximum(excess, 1e-12))
    limits = limits + np.log(np.maximum(excess, 1e-12))
    regression = Regression(members, log_variance, limits, floor)
    deviation = np.sqrt(np.maximum(np.exp(np.clip(features @ log_variance, *limits)), floor))
    return regression, unseen + centre, deviation


def _solve(gram: Array, moment: Array, rows: int, ridge: float = RIDGE) -> Array:
    return np.asarray(np.linalg.solve(gram + ridge * rows * np.eye(len(gram)), moment))


def fit_ends(features: Array, terminated: Array) -> Array:
    """(F,) coefficients of a logistic regression; a constant where nothing, or everything, ended."""
    coefficients = np.zeros(features.shape[1])
    ends, rows = float(terminated.sum()), len(terminated)
    coefficients[0] = np.log((ends + 0.5) / (rows - ends + 0.5))
    if not 0 < ends < rows:
        return coefficients
    sign = np.where(terminated, 1.0, -1.0)

    def loss(weights: Array) -> tuple[float, Array]:
        margin = sign * (features @ weights)
        wrong = 1.0 / (1.0 + np.exp(np.clip(margin, -500, 500)))
        value = np.logaddexp(0.0, -margin).sum() + 0.5e-3 * float(weights[1:] @ weights[1:])
        gradient = -(features.T @ (sign * wrong))
        gradient[1:] += 1e-3 * weights[1:]
        return float(value), gradient

    found = minimize(loss, coefficients, jac=True, method="L-BFGS-B", options={"maxiter": 150})
    return np.asarray(found.x)


@dataclass(frozen=True)
class Residuals:
    """What reality did beyond what was expected, in standard deviations, and how sure the expectation was."""

    dynamics: Array  # (N, D) signed
    dynamics_doubt: Array  # (N,) mean log deviation
    reward: Array  # (N, 1)
    reward_doubt: Array
    termination: Array  # (N, 1)
    termination_doubt: Array


@dataclass(frozen=True)
class MonitorModel:
    """Expectations of next observation, reward and end from (observation, action)."""

    inputs: Features  # of (observation, action)
    outcomes: Features  # of (observation, action, next observation)
    dynamics: Regression
    reward: Regression
    ends: Array

    def residuals(self, steps: Transitions) -> Residuals:
        """Of each step."""
        features = self.inputs(np.concatenate([steps.observation, steps.action], axis=1))
        mean, deviation = self.dynamics.predict(features)
        outcome = self.outcomes(np.concatenate([steps.observation, steps.action, steps.following], axis=1))
        reward, reward_deviation = self.reward.predict(outcome)
        return _residuals(steps, mean, deviation, reward, reward_deviation, outcome @ self.ends)

    def deviations(self, traces: Traces) -> tuple[Array, Array]:
        """(N, D) and (N, 1): how sure it is of each step's next observation and reward."""
        steps = Transitions.of(traces)
        given = np.concatenate([steps.observation, steps.action], axis=1)
        outcome = self.outcomes(np.concatenate([given, steps.following], axis=1))
        return self.dynamics.predict(self.inputs(given))[1], self.reward.predict(outcome)[1]

    def fingerprint(self) -> str:
        """A hash of every coefficient."""
        digest = hashlib.sha256()
        for part in (self.inputs, self.outcomes, self.dynamics, self.reward):
            for array in vars(part).values():
                digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(np.ascontiguousarray(self.ends).tobytes())
        return digest.hexdigest()


def fit_monitor(reference: Traces, seed: int = 0) -> tuple[MonitorModel, Residuals]:
    """The model, and the residuals of the reference steps under members that had not seen their episodes.

    Raises InvalidInput for fewer than ten times as many episodes as members, or traces without actions.
    """
    if reference.units < 10 * FOLDS:
        raise InvalidInput("reference", f"has {reference.units} episodes; a monitor model needs {10 * FOLDS}")
    steps = Transitions.of(reference)
    given = np.concatenate([steps.observation, steps.action], axis=1)
    result = np.concatenate([given, steps.following], axis=1)
    inputs, outcomes = Features.fitted(given, seed), Features.fitted(result, seed + 1, UNITS // 4)
    features, outcome = inputs(given), outcomes(result)
    least = EXACTNESS * np.sqrt(np.mean(steps.following**2, axis=0))
    dynamics, mean, deviation = fit_regression(features, steps.following - steps.observation, steps.unit, least)
    least = REWARD_EXACTNESS * np.sqrt(np.mean(steps.reward**2, keepdims=True))
    reward, reward_mean, reward_deviation = fit_regression(outcome, steps.reward[:, None], steps.unit, least)
    ends = fit_ends(outcome, steps.terminated)
    model = MonitorModel(inputs, outcomes, dynamics, reward, ends)
    return model, _residuals(steps, mean, deviation, reward_mean, reward_deviation, outcome @ ends)


def _residuals(
    steps: Transitions, mean: Array, deviation: Array, reward: Array, reward_deviation: Array, margin: Array
) -> Residuals:
    probability = 1.0 / (1.0 + np.exp(-np.clip(margin, -SUREST, SUREST)))
    doubt = np.sqrt(probability * (1.0 - probability))
    return Residuals(
        dynamics=(steps.following - steps.observation - mean) / deviation,
        dynamics_doubt=np.log(deviation).mean(axis=1),
        reward=(steps.reward[:, None] - reward) / reward_deviation,
        reward_doubt=np.log(reward_deviation).mean(axis=1),
        termination=((steps.terminated - probability) / doubt)[:, None],
        termination_doubt=np.log(doubt),
    )
