"""What a metric looks at: windows of trajectories with equal starts and actions, real or imagined.

Refuses windows that go on after an episode's end: an autoreset frame taken for a transition spoils every number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from simservice.errors import InvalidInput
from simservice.types import Array


@dataclass(frozen=True, kw_only=True)
class Traces:
    """N windows of up to H steps, and the closed-loop returns of whole episodes by policy.

    Real and imagined traces that belong together have the same windows in the same order: the same start, the same
    actions. A window of reality ends where its episode does; an imagined one where the world said so.
    """

    observation: Array  # (N, H + 1, D) float64; row 0 is the start, rows after the window's end mean nothing
    reward: Array  # (N, H) float64
    terminated: Array  # (N, H) bool
    truncated: Array  # (N, H) bool
    valid: Array  # (N, H) bool: the steps the window has, from its first on without a gap
    unit: Array  # (N,) int: the episode a window was cut from, the independent unit of evidence
    termination_probability: Array | None = None  # (N, H), where the world says it
    action: Array | None = None  # (N, H, A) float64: what was done, a discrete one as one-hot
    deviation: Array | None = None  # (N, H, D): the standard deviation the world predicts of observation[:, 1:]
    uncertainty: Array | None = None  # (N, H): how little the world says it knows of a step; only its order counts
    success: Array | None = None  # (N,) bool: whether the task was judged done, by one judge for both sides
    pair: Array | None = None  # (N,) int: two windows of one number have one start and different actions
    frames: Array | None = None  # (N, H + 1, height, width, colours) uint8, where the world has pictures
    returns: Mapping[str, Array] = field(default_factory=dict)  # (episodes,) undiscounted, by policy
    runs: Mapping[str, str] = field(default_factory=dict)  # the training run a policy came from, if not its own
    exploited: Array | None = None  # (episodes,) returns of the policy that was optimised inside the world
    return_range: tuple[float, float] | None = None  # the lowest and highest return worth telling apart

    def __post_init__(self) -> None:
        if self.observation.ndim != 3:
            raise InvalidInput(
                "observation", f"must be (windows, steps + 1, dimensions), found {self.observation.shape}"
            )
        windows, rows, _ = self.observation.shape
        expected = (windows, rows - 1)
        for name in ("reward", "terminated", "truncated", "valid", "termination_probability", "uncertainty"):
            array = getattr(self, name)
            if array is not None and array.shape != expected:
                raise InvalidInput(name, f"must be (windows, steps) = {expected}, found {array.shape}")
        if self.frames is not None and self.frames.shape[:2] != (windows, rows):
            raise InvalidInput("frames", f"must be (windows, steps + 1, ...), found {self.frames.shape}")
        for name, rows in (("action", self.action), ("deviation", self.deviation)):
            if rows is not None and rows.shape[:2] != expected:
                raise InvalidInput(name, f"must be (windows, steps, ...) = {expected}, found {rows.shape}")
        for name in ("unit", "success", "pair"):
            array = getattr(self, name)
            if array is not None and array.shape != (windows,):
                raise InvalidInput(name, f"must be (windows,) = {(windows,)}, found {array.shape}")
        if np.any(self.valid[:, 1:] & ~self.valid[:, :-1]):
            raise InvalidInput("valid", "has a gap: a window's steps must be its first ones")
        ended = (self.terminated | self.truncated) & self.valid
        after = self.valid[:, 1:] & ended[:, :-1]
        if after.any():
            window, step = np.argwhere(after)[0]
            problem = (
                f"window {window} goes on after its end at step {step}: these are autoreset frames, not transitions"
            )
            raise InvalidInput("valid", problem)
        if not np.isfinite(self.observation[:, 1:][self.valid]).all() or not np.isfinite(self.reward[self.valid]).all():
            raise InvalidInput("observation", "holds numbers that are not finite; a world that diverged has no score")

    @property
    def windows(self) -> int:
        """How many there are."""
        return int(self.observation.shape[0])

    def __getitem__(self, rows: Array | slice) -> Traces:
        """Some of the windows; the returns stay."""
        arrays = {name: getattr(self, name) for name in PER_WINDOW}
        return replace(self, **{name: array[rows] for name, array in arrays.items() if array is not None})

    @property
    def horizon(self) -> int:
        """The most steps a window can have."""
        return int(self.valid.shape[1])

    @property
    def units(self) -> int:
        """Independent episodes the windows were cut from."""
        return len(np.unique(self.unit))

    def held(self) -> Array:
        """(N, H + 1, D) observations, where the last valid one stays after the window's end."""
        return hold(self.observation, self.valid)


PER_WINDOW = (
    "observation",
    "reward",
    "terminated",
    "truncated",
    "valid",
    "unit",
    "termination_probability",
    "action",
    "deviation",
    "uncertainty",
    "success",
    "pair",
    "frames",
)


def hold(observation: Array, valid: Array) -> Array:
    """Observations (..., H + 1, D), where the last one reached by valid steps (..., H) stays from there on.

    So a world that ends an episode too early is wrong from then on, instead of not being counted.
    """
    last = np.minimum(np.arange(observation.shape[-2]), valid.sum(axis=-1)[..., None])  # (..., H + 1)
    return np.take_along_axis(observation, last[..., None], axis=-2)


def mean_while_running(observation: Array, runs: Array) -> tuple[Array, Array]:
    """The mean (N, H + 1, D) of copies (N, C, H + 1, D) over those that still run, and (N, H) whether any does.

    runs is (N, C, H) bool. An end that was bad luck of one copy is termination's error, which single steps measure; an
    end that all copies agree on is what an agent would see of the world's states.
    """
    there = np.concatenate([np.ones_like(runs[..., :1]), runs], axis=2)  # (N, C, H + 1): row 0 is the start
    copies = np.maximum(there.sum(axis=1), 1)  # (N, H + 1)
    mean = np.where(there[..., None], observation, 0.0).sum(axis=1) / copies[..., None]
    some: Array = np.any(runs, axis=1)
    return hold(mean, some), some


def check_paired(real: Traces, imagined: Traces) -> None:
    """Raises InvalidInput unless both have the same windows and start where reality did."""
    if real.observation.shape != imagined.observation.shape or np.any(real.unit != imagined.unit):
        raise InvalidInput("imagined", "must have the real traces' windows, in their order")


def matrix(leaves: Mapping[str, Array], lead: int) -> Array:
    """Observation leaves with `lead` leading axes as one float64 array (..., D): every number is one dimension."""
    parts = [array.reshape(*array.shape[:lead], -1).astype(np.float64) for array in leaves.values()]
    return np.concatenate(parts, axis=-1)


def per_unit(unit: Array, values: Array) -> Array:
    """Sums values (N, ...) over the windows of each unit: (units, ...)."""
    _, place = np.unique(unit, return_inverse=True)
    sums = np.zeros((int(place.max()) + 1, *values.shape[1:]))
    np.add.at(sums, place, values)
    return sums
