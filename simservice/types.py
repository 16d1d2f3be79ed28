"""The nouns every floor shares: what a world offers, what a step gives, what an episode holds.

Knows numpy and Gymnasium only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from simservice.errors import UnsupportedSpace

Array = np.ndarray[Any, np.dtype[Any]]
Leaves = dict[str, Array]
"""Arrays of a (possibly nested) value by leaf path, in space order: `observation`, `observation/image`, `action/0`."""

OWN_NAMESPACE = "simservice/"
"""Of the ids of our own environments. Those are registered when the module simservice.grounds is imported."""

SEED_LIMIT = 2**63
"""Seeds are integers in [0, SEED_LIMIT): they travel and are stored as signed 64-bit integers."""


@dataclass(frozen=True)
class Leaf:
    """One array of a fixed-shape space: where it sits, and the shape and dtype of one lane's value."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    space: gym.Space[Any]


def qualified(env_id: str) -> str:
    """The id as gym.make takes it: ids of our own environments name the module that registers them."""
    return f"simservice.grounds:{env_id}" if env_id.startswith(OWN_NAMESPACE) else env_id


SIMPLE = frozenset({spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary})
"""Spaces that are one leaf; asked first, for whether one is a Dict costs ten times as much to find out."""


def leaves_of(space: gym.Space[Any], root: str) -> tuple[Leaf, ...]:
    """The leaves of a fixed-shape space in space order; `root` is "observation" or "action".

    Box, Discrete, MultiDiscrete and MultiBinary are one leaf each; Dict (in its key order) and Tuple are walked.
    Raises UnsupportedSpace for Text, Sequence, Graph and OneOf, whose values have no fixed shape.
    """
    if isinstance(space, tuple(SIMPLE)):
        assert space.dtype is not None and space.shape is not None
        return (Leaf(root, tuple(space.shape), np.dtype(space.dtype), space),)
    if isinstance(space, spaces.Dict):
        return tuple(leaf for key, child in space.spaces.items() for leaf in leaves_of(child, f"{root}/{key}"))
    if isinstance(space, spaces.Tuple):
        return tuple(leaf for i, child in enumerate(space.spaces) for leaf in leaves_of(child, f"{root}/{i}"))
    raise UnsupportedSpace(root, type(space).__name__)


def to_leaves(space: gym.Space[Any], value: Any, root: str) -> Leaves:
    """Takes a value (or a batch of values with leading axes) of a fixed-shape space apart; dtypes are left as found."""
    if type(space) in SIMPLE:
        return {root: np.asarray(value)}
    if isinstance(space, spaces.Dict):
        return {
            path: array
            for key, child in space.spaces.items()
            for path, array in to_leaves(child, value[key], f"{root}/{key}").items()
        }
    if isinstance(space, spaces.Tuple):
        return {
            path: array
            for i, child in enumerate(space.spaces)
            for path, array in to_leaves(child, value[i], f"{root}/{i}").items()
        }
    return {root: np.asarray(value)}


def from_leaves(space: gym.Space[Any], leaves: Mapping[str, Array], root: str) -> Any:
    """Puts a value (or a batch) together again: the inverse of to_leaves."""
    if type(space) in SIMPLE:
        return leaves[root]
    if isinstance(space, spaces.Dict):
        return {key: from_leaves(child, leaves, f"{root}/{key}") for key, child in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(from_leaves(child, leaves, f"{root}/{i}") for i, child in enumerate(space.spaces))
    return leaves[root]


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """What a client and a server agree on before the first step: the whole contract of one world."""

    name: str
    version: str  # content hash of the checkpoint, 12 hex digits; snapshots of one version fit only that version
    family: str
    observation_space: gym.Space[Any]  # of one lane
    action_space: gym.Space[Any]  # of one lane
    max_episode_steps: int | None = None  # the service truncates here; the world itself only terminates
    render_modes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)  # JSON values, e.g. render_fps
    capabilities: frozenset[str] = frozenset()  # of: reward, termination, uncertainty, context, render
    trust_horizon_steps: int | None = None  # steps of open-loop prediction that were within tolerance at release

    @property
    def full_name(self) -> str:
        """`name@version`, how the world is named wherever one version is meant."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a world comes from: enough to find its data again and to judge it. JSON values only."""

    env_id: str | None = None  # the Gymnasium id of the real environment
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    env_attributes: Mapping[str, Any] = field(default_factory=dict)  # physics changed after it was made
    dataset_id: str | None = None
    dataset_hash: str | None = None  # sha256 over the episodes' arrays
    real_steps: int = 0  # every real step the dataset cost, held-out episodes included
    code_version: str = ""
    fidelity: Mapping[str, Any] = field(default_factory=dict)  # figures at release


@dataclass(frozen=True)
class Episode:
    """One whole real trajectory of T steps.

    Arrays by leaf path: observation has T + 1 rows, action T rows in the spaces' dtypes; reward (T,) float64.
    The last step may be terminated, truncated, both, or neither (recording stopped in mid-episode).
    """

    observation: Leaves
    action: Leaves
    reward: Array  # (T,) float64
    terminated: bool
    truncated: bool
    seed: int | None = None  # of the reset that began it
    policy: str = ""  # who acted, e.g. "random"

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def undiscounted_return(self) -> float:
        """The sum of the rewards."""
        return float(np.sum(self.reward))


@dataclass(frozen=True)
class Context:
    """Real observations (and the actions between them) that start lanes where reality once was.

    observation[path] is (lanes, frames, ...); action[path] is (lanes, frames - 1, ...), where action[i] leads from
    frame i to frame i + 1.
    """

    observation: Leaves
    action: Leaves

    @property
    def frames(self) -> int:
        """How many real frames each lane is grounded in (at least 1)."""
        return int(next(iter(self.observation.values())).shape[1])


@dataclass(frozen=True, kw_only=True)
class Caution:
    """Where a session's lanes stop trusting their world, on the server. The default trusts it everywhere."""

    truncate_at_trust_horizon: bool = False
    max_uncertainty: float | None = None  # a step beyond it is the episode's last, truncated
    uncertainty_penalty: float = 0.0  # times the step's uncertainty is taken off its reward


TRUSTING = Caution()
"""No caution at all."""


@dataclass(frozen=True)
class Info:
    """One named info over all lanes of a session; lanes where `present` is False carry no value."""

    value: Array  # (lanes, ...)
    present: Array  # (lanes,) bool


Infos = dict[str, Info]


class Spent(NamedTuple):
    """When a step was handed to the engine and when its tick began, by perf_counter_ns, and how long the world took."""

    handed_ns: int
    began_ns: int
    model_ns: int


@dataclass(frozen=True)
class StepResult:
    """What one vector step gives for n lanes."""

    observation: Leaves  # (n, ...) each
    reward: Array  # (n,) float64
    terminated: Array  # (n,) bool
    truncated: Array  # (n,) bool
    infos: Infos
    final_observation: Leaves | None = None  # SAME_STEP only: rows are meaningful where final is True
    final: Array | None = None  # (n,) bool: lanes that ended and were started again in this very step
    spent: Spent | None = None  # None: it was not done now


@dataclass(frozen=True)
class ResetResult:
    """What a reset gives for the n lanes of a session; lanes outside the mask keep their last observation."""

    observation: Leaves
    infos: Infos


@dataclass(frozen=True, kw_only=True)
class PolicyUse:
    """A policy that acts in a rollout, and how it explores."""

    content_hash: str
    greedy: bool = False  # the likeliest action, the mean, the highest value
    epsilon: float = 0.0  # of a policy that gives values of actions: the share of actions that are drawn evenly
    clip_only: bool = False  # Box actions are clipped to their bounds, not stretched from [-1, 1] onto them


@dataclass(frozen=True, kw_only=True)
class Imagine:
    """A rollout that is asked for: T steps of n = lanes * copies lanes, by given actions or by a policy."""

    steps: int
    actions: Leaves | None = None  # open loop: (T, n, ...)
    policy: PolicyUse | None = None  # closed loop
    advance: bool = False  # the session's lanes go on from where it ends; otherwise copies of them play it
    lanes: Array | None = None  # (k,) int64, places in the session; None: all
    copies: int = 1
    fresh: bool = False  # luck of their own for the copies
    seeds: Array | None = None  # (n,) int64, with fresh luck; None: drawn
    stop_at_end: bool = False  # a lane whose episode ends does no more
    observation: bool = True  # wanted in the answer
    action: bool = True  # the same, of a policy
    outputs: bool = True  # the same: all that the policy gives beside its action


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """T steps of a rollout's n lanes, or a part of them. A mask that is None is False everywhere."""

    first: int = 0  # the number of the first step here
    reward: Array  # (T, n) float64
    terminated: Array  # (T, n) bool
    truncated: Array  # (T, n) bool
    start: Leaves | None = None  # (n, ...): before the first step; with the first part, where observations are wanted
    observation: Leaves | None = None  # (T, n, ...): after each step
    action: Leaves | None = None  # (T, n, ...): a policy's, as the world took them
    began: Array | None = None  # (T, n) bool, NEXT_STEP: the step began an episode, its action was not used
    stopped: Array | None = None  # (T, n) bool: the lane's episode is over and the step was not made
    final: Array | None = None  # (T, n) bool, SAME_STEP: the episode ended and another one began in this step
    final_observation: Leaves | None = None  # (final.sum(), ...): the last observations of those, in order
    uncertainty: Array | None = None  # (T, n) float32, NaN where nobody knows
    distrusted: Array | None = None  # (T, n) bool: truncated by the session's caution
    world_error: Array | None = None  # (T, n) bool: not taken, as it was no number, and truncated
    log_probability: Array | None = None  # (T, n) float32, a policy's
    outputs: Leaves | None = None  # (T, n, ...) by name, a policy's; "raw_action": before it was fitted to the space
    last: bool = True  # no part comes after this one

    def __len__(self) -> int:
        return len(self.reward)


def stack_episodes(episodes: Sequence[Episode], path: str) -> Array:
    """All rows of one observation leaf over all episodes, concatenated: (sum of T + 1, ...)."""
    return np.concatenate([episode.observation[path] for episode in episodes])
