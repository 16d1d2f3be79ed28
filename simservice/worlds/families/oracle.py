"""The control that cannot be wrong: the real Gymnasium environment behind the interface of a world.

A row holds the seed of an episode and the actions since: with them any process can bring the environment to the same
state, so snapshots, forks, other replicas and recovery hold for every environment that its seed determines. Live
environments are kept beside, found by a hash of that history; losing them costs time, never correctness.

Its time limit is the service's business and is stripped off.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from simservice.errors import ConfigError, InvalidInput, UnknownEnvironment
from simservice.types import Array, Episode, Leaf, Leaves, WorldSpec, from_leaves, leaves_of, qualified, to_leaves
from simservice.worlds.codec import torch_dtype
from simservice.worlds.placing import can_place, place
from simservice.worlds.world import Call, Draw, Slot, StepOut, Tensors, World

Environment = gym.Env[Any, Any]


@dataclass(frozen=True, kw_only=True)
class OracleConfig:
    """Which environment, and how much of it is kept."""

    env_id: str = ""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)  # set on the unwrapped environment, e.g. gravity
    history_limit: int | None = None  # actions a row can hold; None: the time limit of the spec
    live_environments: int = 1024  # beyond this the longest unused is taken over and rebuilt when asked for

    def __post_init__(self) -> None:
        if self.live_environments < 1 or (self.history_limit is not None and self.history_limit < 1):
            raise ValueError("history_limit and live_environments must be 1 or more")


class _Live:
    """Environments by the hash of what happened in them; forgets the longest unused."""

    def __init__(self, config: OracleConfig) -> None:
        self._config = config
        self._by_chain: OrderedDict[int, list[Environment]] = OrderedDict()
        self._spare: list[Environment] = []
        self._count = 0

    def take(self, chain: int) -> Environment | None:
        """The environment at this point of its history, no longer kept here; None where there is none."""
        found = self._by_chain.get(chain)
        if not found:
            return None
        environment = found.pop()
        if not found:
            del self._by_chain[chain]
        return environment

    def give(self, chain: int, environment: Environment) -> None:
        self._by_chain.setdefault(chain, []).append(environment)
        self._by_chain.move_to_end(chain)

    def any(self) -> Environment:
        """An environment in whatever state, to be reset."""
        if self._spare:
            return self._spare.pop()
        if self._count >= self._config.live_environments and self._by_chain:
            chain = next(iter(self._by_chain))
            environment = self.take(chain)
            assert environment is not None
            return environment
        self._count += 1
        return make(self._config)

    def free(self, environment: Environment) -> None:
        """Takes back an environment whose episode is over."""
        self._spare.append(environment)


def make(config: OracleConfig, **changes: Any) -> Environment:
    """The configured environment without its time limit. Raises UnknownEnvironment or ConfigError."""
    arguments = {**config.env_kwargs, "disable_env_checker": True, **changes}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is out of date.*")
            # Box2D's binding warns while its module is being made, and crashes where warnings are errors.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            environment: Environment = gym.make(qualified(config.env_id), max_episode_steps=-1, **arguments)
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise UnknownEnvironment(config.env_id, str(error)) from error
    except TypeError as error:
        raise ConfigError(f"env_kwargs do not fit {config.env_id}: {error}", key="env_kwargs") from error
    for name, value in config.attributes.items():
        if not hasattr(environment.unwrapped, name):
            raise ConfigError(f"{config.env_id} has no attribute {name!r} to set", key=f"attributes.{name}")
        setattr(environment.unwrapped, name, value)
    return environment


class Oracle(World):
    """State rows: live, ended, seed, steps, chain, the action history and the observation now.

    `live` is False in rows of zeros, which the engine may pad with: they cost nothing. `placed` rows began at a given
    observation (`base`) instead of the seed's own start.
    """

    family = "oracle"
    Config = OracleConfig
    device_types: ClassVar[frozenset[str]] = frozenset({"cpu"})
    config: OracleConfig

    def __init__(self, spec: WorldSpec, config: OracleConfig) -> None:
        if not config.env_id:
            raise ConfigError("the family oracle needs the setting env_id, e.g. env_id=CartPole-v1", key="env_id")
        limits = [limit for limit in (spec.max_episode_steps, config.history_limit) if limit is not None]
        if not limits:
            raise ConfigError(
                f"{config.env_id} has no time limit, so the oracle needs the setting history_limit: how many steps "
                "an episode may take at most",
                key="history_limit",
            )
        self._limit = min(limits)
        self._live = _Live(config)
        self._painter: Environment | None = None
        environment = self._live.any()
        self._live.free(environment)
        for name in ("observation_space", "action_space"):
            if getattr(environment, name) != getattr(spec, name):
                problem = f"{config.env_id} has {getattr(environment, name)}, the spec {getattr(spec, name)}"
                raise InvalidInput(name, problem)
        self._placeable = can_place(config.env_id)
        capabilities = {"reward", "termination", "uncertainty"} | ({"context"} if self._placeable else set())
        pictures = "rgb_array" in environment.metadata.get("render_modes", ())
        super().__init__(
            replace(
                spec,
                family=self.family,
                max_episode_steps=self._limit,
                render_modes=("rgb_array",) if pictures else (),
                capabilities=frozenset(capabilities | ({"render"} if pictures else set())),
            ),
            config,
        )
        self._seen = leaves_of(spec.observation_space, "observation")
        self._done = leaves_of(spec.action_space, "action")

    @property
    def slots(self) -> Mapping[str, Slot]:
        number = {name: Slot((), torch.int64, "index") for name in ("seed", "steps", "chain")}
        flags = {name: Slot((), torch.bool, "index") for name in ("live", "ended", "placed")}
        history = {
            f"history/{leaf.path}": Slot((self._limit, *leaf.shape), torch_dtype(_compact(leaf)), "index")
            for leaf in self._done
        }
        frames = {leaf.path: Slot(leaf.shape, torch_dtype(leaf.dtype), "frame") for leaf in self._seen}
        base = {f"base/{path}": slot for path, slot in frames.items()} if self._placeable else {}
        return {**number, **flags, **history, **frames, **base}

    @property
    def draws(self) -> Mapping[Call, Mapping[str, Draw]]:
        seed = {"seed": Draw("uniform", (2,))}
        return {"init": seed, "observe": seed if self._placeable else {}, "step": {}}

    # ---- serving ---------------------------------------------------------------------------------------------------

    def init(self, draws: Tensors) -> Tensors:
        seeds = _seeds(draws)
        rows = self._fresh(seeds)
        begun: dict[int, Leaves] = {}
        for i, seed in enumerate(seeds.tolist()):
            chain = int(rows["chain"][i])
            if seed not in begun:
                environment = self._live.any()
                observation, _ = environment.reset(seed=seed)
                self._live.give(chain, environment)
                begun[seed] = to_leaves(self.spec.observation_space, observation, "observation")
            for path, value in begun[seed].items():
                rows[path][i] = value
        return _tensors(rows)

    def observe(
        self, state: Tensors, observation: Tensors, previous_action: Tensors, is_first: Tensor, draws: Tensors
    ) -> Tensors:
        """Begins anew at the observation: each frame says all there is to know, so earlier ones are not needed."""
        if not self._placeable:
            raise InvalidInput("context", f"the state of {self.config.env_id} does not follow from an observation")
        rows = self._fresh(_seeds(draws))
        rows["placed"][:] = True
        for leaf in self._seen:
            rows[leaf.path] = observation[leaf.path].numpy().copy()
            rows[f"base/{leaf.path}"] = observation[leaf.path].numpy().copy()
        for i in range(len(rows["seed"])):
            frame = b"".join(rows[leaf.path][i].tobytes() for leaf in self._seen)
            rows["chain"][i] = _hash(int(rows["chain"][i]), frame)
        return _tensors(rows)

    def step(self, state: Tensors, action: Tensors, draws: Tensors) -> tuple[Tensors, StepOut]:
        rows = {name: tensor.numpy().copy() for name, tensor in state.items()}
        actions = {leaf.path: action[leaf.path].numpy() for leaf in self._done}
        lanes = len(rows["seed"])
        reward, terminated = np.zeros(lanes), rows["ended"].copy()
        known: dict[int, int] = {}  # rows with one history and action share one real step
        for i in np.flatnonzero(rows["live"] & ~rows["ended"]).tolist():
            taken = {path: values[i] for path, values in actions.items()}
            before = int(rows["chain"][i])
            after = _hash(before, b"".join(np.asarray(value).tobytes() for value in taken.values()))
            if after in known:
                twin = known[after]
                reward[i], terminated[i] = reward[twin], terminated[twin]
                for leaf in self._seen:
                    rows[leaf.path][i] = rows[leaf.path][twin]
            else:
                known[after] = i
                reward[i], terminated[i] = self._really_step(rows, i, before, after, taken)
            if rows["steps"][i] < self._limit:
                for leaf in self._done:
                    rows[f"history/{leaf.path}"][i, rows["steps"][i]] = taken[leaf.path]
            rows["steps"][i] += 1
            rows["chain"][i] = after
        rows["ended"] = terminated.copy()
        out = StepOut(
            reward=torch.from_numpy(reward),
            terminated=torch.from_numpy(terminated),
            termination_probability=torch.from_numpy(terminated.astype(np.float32)),
            uncertainty=torch.zeros(lanes),
            aux={},
        )
        return _tensors(rows), out

    def emit(self, state: Tensors) -> Tensors:
        return {leaf.path: state[leaf.path].clone() for leaf in self._seen}

    def render(self, state: Tensors) -> Tensor:
        if not self.spec.render_modes:
            return super().render(state)
        if self._painter is None:
            for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
                os.environ.setdefault(name, "dummy")  # pygame draws into memory; without a screen it would complain
            self._painter = make(self.config, render_mode="rgb_array")
        rows = {name: tensor.numpy() for name, tensor in state.items()}
        frames: dict[int, Array] = {}
        for i, chain in enumerate(rows["chain"].tolist()):
            if chain not in frames:
                self._replay(self._painter, rows, i)
                frames[chain] = np.asarray(self._painter.render(), dtype=np.uint8)
        return torch.from_numpy(np.stack([frames[chain] for chain in rows["chain"].tolist()]))

    # ---- the real thing --------------------------------------------------------------------------------------------

    def _fresh(self, seeds: Array) -> Leaves:
        rows = {name: tensor.numpy() for name, tensor in self.allocate(len(seeds)).items()}
        rows["live"][:] = True
        rows["seed"] = seeds
        rows["chain"] = np.array([_hash(seed, b"seed") for seed in seeds.tolist()], dtype=np.int64)
        return rows

    def _really_step(self, rows: Leaves, i: int, before: int, after: int, action: Leaves) -> tuple[float, bool]:
        """Steps the environment of row i and writes its observation; an environment's own truncation ends it too."""
        if rows["steps"][i] >= self._limit:
            return 0.0, True  # the history is full; the service's time limit has come before this
        environment = self._live.take(before)
        if environment is None:
            environment = self._live.any()
            self._replay(environment, rows, i)
        value = self._action(action)
        observation, reward, terminated, truncated, _ = environment.step(value)
        for path, seen in to_leaves(self.spec.observation_space, observation, "observation").items():
            rows[path][i] = seen
        ended = bool(terminated or truncated)
        if ended:
            self._live.free(environment)
        else:
            self._live.give(after, environment)
        return float(reward), ended

    def _replay(self, environment: Environment, rows: Leaves, i: int) -> None:
        """Brings an environment to the state of row i, from its beginning."""
        environment.reset(seed=int(rows["seed"][i]))
        if self._placeable and rows["placed"][i]:
            base = {leaf.path: rows[f"base/{leaf.path}"][i] for leaf in self._seen}
            place(self.config.env_id, environment, from_leaves(self.spec.observation_space, base, "observation"))
        for step in range(min(int(rows["steps"][i]), self._limit)):
            taken = {
                leaf.path: rows[f"history/{leaf.path}"][i, step].astype(leaf.dtype)  # out of its compact form
                for leaf in self._done
            }
            environment.step(self._action(taken))

    def _action(self, leaves: Leaves) -> Any:
        return _scalars(self.spec.action_space, from_leaves(self.spec.action_space, leaves, "action"))

    # ---- training --------------------------------------------------------------------------------------------------

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Nothing is learned: the environment is the one that the config names."""


def _compact(leaf: Leaf) -> np.dtype[Any]:
    """The smallest dtype that holds every action of a leaf."""
    if isinstance(leaf.space, spaces.Discrete):
        reach = max(abs(int(leaf.space.start)), abs(int(leaf.space.start) + int(leaf.space.n)))
    elif isinstance(leaf.space, spaces.MultiDiscrete):
        first, count = np.asarray(leaf.space.start, dtype=np.int64), np.asarray(leaf.space.nvec, dtype=np.int64)
        reach = int(max(np.abs(first).max(), np.abs(first + count).max()))
    else:
        return leaf.dtype
    return next(np.dtype(kind) for kind in (np.int8, np.int16, np.int32, np.int64) if reach <= np.iinfo(kind).max)


def _seeds(draws: Tensors) -> Array:
    """31-bit seeds (every environment takes those) from two uniforms each."""
    uniform = draws["seed"].numpy().astype(np.float64)
    high, low = (uniform[:, 0] * 2**24).astype(np.int64), (uniform[:, 1] * 2**7).astype(np.int64)
    seeds: Array = high * 2**7 + low
    return seeds


def _hash(before: int, what: bytes) -> int:
    """The next link of a history's chain, as a signed 64-bit integer."""
    digest = hashlib.blake2b(before.to_bytes(8, "little", signed=True) + what, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _scalars(space: gym.Space[Any], value: Any) -> Any:
    """Numpy scalars where a Discrete space expects them, arrays elsewhere."""
    if isinstance(space, spaces.Dict):
        return {key: _scalars(child, value[key]) for key, child in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_scalars(child, value[i]) for i, child in enumerate(space.spaces))
    return np.asarray(value)[()] if isinstance(space, spaces.Discrete) else np.array(value)


def _tensors(rows: Leaves) -> Tensors:
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in rows.items()}
