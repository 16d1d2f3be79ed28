"""Records real episodes and counts every real step. Does not know where they are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from simservice.data.environments import Environment, close, make_environment
from simservice.data.episodes import check_episode
from simservice.data.policies import Policy, epsilon_mixture, random_policy, stack_values, sticky_policy, take_value
from simservice.errors import InvalidInput, RealStepBudgetExceeded
from simservice.types import Episode, Leaves, leaves_of, to_leaves

Progress = Callable[[int], None]
"""Called with the number of steps (or episodes) recorded since the last call."""

NamedPolicy = Literal["random", "sticky"]


@dataclass
class RealStepCounter:
    """Counts the real steps and resets of everything that shares it, and refuses to pass its budget."""

    budget: int | None = None  # steps; None counts without a limit
    steps: int = 0
    resets: int = 0

    @property
    def remaining(self) -> int | None:
        """Steps left, or None without a budget."""
        return None if self.budget is None else self.budget - self.steps

    def check(self, steps: int) -> None:
        """Raises RealStepBudgetExceeded when `steps` more would pass the budget; spends nothing."""
        if self.budget is not None and self.steps + steps > self.budget:
            raise RealStepBudgetExceeded(steps, self.steps, self.budget)

    def spend(self, steps: int = 1) -> None:
        """Counts steps that are about to be taken."""
        self.check(steps)
        self.steps += steps


@dataclass(kw_only=True)
class _Lane:
    """One real environment and the episode it is in. Resets by itself, so no autoreset frame is ever recorded."""

    environment: Environment
    seeds: np.random.Generator
    counter: RealStepCounter
    policy_name: str
    seed: int = 0
    observations: list[Any] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def begin(self) -> None:
        if not self.observations:
            self.begin_with(int(self.seeds.integers(2**31)))

    def begin_with(self, seed: int) -> None:
        self.seed = seed
        self.counter.resets += 1
        observation, _ = self.environment.reset(seed=seed)
        self.observations.append(observation)

    def step(self, action: Any) -> Episode | None:
        """The episode, when this step ended it."""
        if not self.environment.action_space.contains(action):
            raise InvalidInput("policy", f"gave the action {action!r}, outside {self.environment.action_space}")
        self.counter.spend()
        observation, reward, terminated, truncated, _ = self.environment.step(action)
        self.observations.append(observation)
        self.actions.append(action)
        self.rewards.append(float(reward))
        return self.finish(bool(terminated), bool(truncated)) if terminated or truncated else None

    def finish(self, terminated: bool, truncated: bool) -> Episode:
        """Packs what was recorded since begin, and forgets it."""
        observation_space, action_space = self.environment.observation_space, self.environment.action_space
        episode = Episode(
            observation=_pack(observation_space, self.observations, "observation"),
            action=_pack(action_space, self.actions, "action"),
            reward=np.asarray(self.rewards, dtype=np.float64),
            terminated=terminated,
            truncated=truncated,
            seed=self.seed,
            policy=self.policy_name,
        )
        self.observations, self.actions, self.rewards = [], [], []
        check_episode(episode, observation_space, action_space, f"the episode of seed {self.seed}")
        return episode


def collect(
    env_id: str,
    *,
    steps: int,
    seed: int,
    policy: Policy | NamedPolicy = "random",
    policy_name: str = "",
    epsilon: float = 0.0,
    num_envs: int = 1,
    env_kwargs: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
    budget: RealStepCounter | None = None,
    progress: Progress | None = None,
) -> list[Episode]:
    """Exactly `steps` real steps of `num_envs` environments stepped side by side, as episodes.

    The same arguments give the same episodes. `epsilon` mixes random actions into a policy. Episodes that the last
    step left unfinished are kept as neither terminated nor truncated. Raises RealStepBudgetExceeded before the first
    step when the budget does not hold all of them.
    """
    _check_at_least_one(steps=steps, num_envs=num_envs)
    counter = budget if budget is not None else RealStepCounter()
    counter.check(steps)
    lanes = _lanes(
        env_id, min(num_envs, steps), seed, policy_name or _name(policy, epsilon), counter, env_kwargs, attributes
    )
    try:
        act = _policy(policy, lanes[0].environment, epsilon, seed)
        episodes: list[Episode] = []
        left = steps
        while left:
            stepped = lanes[:left]
            episodes += _tick(stepped, act)
            left -= len(stepped)
            if progress is not None:
                progress(len(stepped))
        return episodes + [lane.finish(False, False) for lane in lanes if lane.actions]
    finally:
        _close(lanes)


def collect_episodes(
    env_id: str,
    *,
    episodes: int,
    seed: int,
    policy: Policy | NamedPolicy = "random",
    policy_name: str = "",
    epsilon: float = 0.0,
    num_envs: int = 16,
    max_steps: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
    budget: RealStepCounter | None = None,
    progress: Progress | None = None,
) -> list[Episode]:
    """Exactly `episodes` whole real episodes, as collect records them.

    How many episodes each environment plays is fixed beforehand, so short episodes are not over-represented.
    An episode still running after `max_steps` is cut and kept as neither terminated nor truncated.
    """
    _check_at_least_one(episodes=episodes, num_envs=num_envs)
    counter = budget if budget is not None else RealStepCounter()
    name = policy_name or _name(policy, epsilon)
    lanes = _lanes(env_id, min(num_envs, episodes), seed, name, counter, env_kwargs, attributes)
    try:
        act = _policy(policy, lanes[0].environment, epsilon, seed)
        played: list[list[Episode]] = [[] for _ in lanes]
        quota = [len(range(i, episodes, len(lanes))) for i in range(len(lanes))]
        while active := [i for i in range(len(lanes)) if len(played[i]) < quota[i]]:
            before = sum(map(len, played))
            ended = _ended(active, [lanes[i] for i in active], act)
            for i in active:
                if ended[i] is None and max_steps is not None and len(lanes[i].actions) >= max_steps:
                    ended[i] = lanes[i].finish(False, False)
                if (episode := ended[i]) is not None:
                    played[i].append(episode)
            if progress is not None and (new := sum(map(len, played)) - before):
                progress(new)
        return [played[k % len(lanes)][k // len(lanes)] for k in range(episodes)]
    finally:
        _close(lanes)


def play_episode(
    environment: Environment, policy: Policy, seed: int, *, policy_name: str, max_steps: int, counter: RealStepCounter
) -> Episode:
    """One episode of an environment that is kept open, from its reset with this very seed; cut after `max_steps`."""
    lane = _Lane(
        environment=environment, seeds=np.random.default_rng(seed), counter=counter, policy_name=policy_name, seed=seed
    )
    lane.begin_with(seed)
    for _ in range(max_steps):
        ended = _ended([0], [lane], policy)[0]
        if ended is not None:
            return ended
    return lane.finish(False, False)


def _ended(indices: list[int], lanes: list[_Lane], act: Policy) -> dict[int, Episode | None]:
    for lane in lanes:
        lane.begin()
    space = lanes[0].environment.observation_space
    actions = act(stack_values(space, [lane.observations[-1] for lane in lanes]))
    action_space = lanes[0].environment.action_space
    return {
        index: lane.step(take_value(action_space, actions, place))
        for place, (index, lane) in enumerate(zip(indices, lanes, strict=True))
    }


def _tick(lanes: list[_Lane], act: Policy) -> list[Episode]:
    ended = _ended(list(range(len(lanes))), lanes, act)
    return [episode for episode in ended.values() if episode is not None]


def _lanes(
    env_id: str,
    count: int,
    seed: int,
    policy_name: str,
    counter: RealStepCounter,
    env_kwargs: Mapping[str, Any] | None,
    attributes: Mapping[str, Any] | None,
) -> list[_Lane]:
    lanes: list[_Lane] = []
    try:
        for child in np.random.SeedSequence(seed).spawn(count):
            environment = make_environment(env_id, env_kwargs, attributes)
            seeds = np.random.default_rng(child)
            lanes.append(_Lane(environment=environment, seeds=seeds, counter=counter, policy_name=policy_name))
        leaves_of(lanes[0].environment.observation_space, "observation")
        leaves_of(lanes[0].environment.action_space, "action")
    except BaseException:
        _close(lanes)
        raise
    return lanes


def _policy(policy: Policy | NamedPolicy, environment: Environment, epsilon: float, seed: int) -> Policy:
    spaces = environment.observation_space, environment.action_space
    if policy == "random":
        return random_policy(*spaces, seed)
    if policy == "sticky":
        return sticky_policy(*spaces, seed)
    if not callable(policy):
        raise InvalidInput("policy", f"{policy!r} is neither 'random', 'sticky' nor a saved policy")
    if not 0.0 <= epsilon <= 1.0:
        raise InvalidInput("epsilon", f"{epsilon} is not between 0 and 1")
    return epsilon_mixture(policy, *spaces, epsilon, seed) if epsilon else policy


def _name(policy: Policy | NamedPolicy, epsilon: float) -> str:
    name = policy if isinstance(policy, str) else "policy"
    return f"{name}-epsilon{epsilon:g}" if epsilon and not isinstance(policy, str) else name


def _pack(space: gym.Space[Any], values: list[Any], root: str) -> Leaves:
    return to_leaves(space, stack_values(space, values), root)


def _check_at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise InvalidInput(name, f"must be at least 1, found {number}")


def _close(lanes: Iterable[_Lane]) -> None:
    for lane in lanes:
        close(lane.environment)
