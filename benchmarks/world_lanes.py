"""Real data, agents trained inside a world in this process, and the report: what the acceptance of worlds stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from vector_ppo import SETTINGS, Agent, learn, real_returns

from simservice.data.episodes import Dataset, fingerprint
from simservice.types import Episode
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import Call, Tensors, World

JUDGED_FROM = 1_000_000  # seeds of the episodes that score agents: none of them is recorded


# ---- real data -------------------------------------------------------------------------------------------------------


def mixed_controller(chance: np.random.Generator) -> Callable[[np.ndarray], int]:
    """A CartPole controller of one episode: its target drifts away, and it often acts at random."""
    epsilon, drift, time = chance.choice([0.05, 0.2, 0.5]), chance.normal() * 0.03, 0

    def act(observation: np.ndarray) -> int:
        nonlocal time
        time += 1
        if chance.random() < epsilon:
            return int(chance.integers(2))
        place, speed, angle, turn = observation
        return int(10 * angle + 2 * turn + 0.35 * (place - drift * time) + 0.6 * speed > 0)

    return act


def record(env_id: str, steps: int, seed: int, behaviour: str) -> list[Episode]:
    """Exactly `steps` real steps: "random", or "mixed" (two fifths random, then noisy controllers)."""
    env, chance, episodes, taken = gym.make(env_id), np.random.default_rng(seed), list[Episode](), 0
    env.action_space.seed(seed)
    while taken < steps:
        observation, _ = env.reset(seed=seed * 10_000 + len(episodes))
        controlled = behaviour == "mixed" and taken >= 0.4 * steps
        act = mixed_controller(chance) if controlled else lambda _: env.action_space.sample()
        episode, length = _play(env, observation, act, steps - taken)
        episodes.append(replace(episode, policy=behaviour))
        taken += length
    env.close()
    return episodes


def play_agent(env_id: str, agent: Agent, steps: int, seed: int) -> list[Episode]:
    """Exactly `steps` real steps of an agent, every tenth action at random."""
    env, chance, episodes, taken = gym.make(env_id), np.random.default_rng(seed), list[Episode](), 0
    env.action_space.seed(seed)

    def act(observation: np.ndarray) -> Any:
        if chance.random() < 0.1:
            return env.action_space.sample()
        action = agent.act(torch.from_numpy(np.asarray(observation, np.float32))[None])[0].numpy()
        return int(action) if agent.discrete else action

    while taken < steps:
        observation, _ = env.reset(seed=seed * 10_000 + len(episodes))
        episode, length = _play(env, observation, act, steps - taken)
        episodes.append(replace(episode, policy="agent"))
        taken += length
    env.close()
    return episodes


def _play(env: gym.Env[Any, Any], observation: Any, act: Callable[[Any], Any], limit: int) -> tuple[Episode, int]:
    seen, acted, rewards, terminated, truncated = [observation], list[Any](), list[float](), False, False
    while not (terminated or truncated) and len(acted) < limit:
        acted.append(act(observation))
        observation, reward, terminated, truncated, _ = env.step(acted[-1])
        seen.append(observation)
        rewards.append(float(reward))
    return (
        Episode(
            observation={"observation": np.stack(seen)},
            action={"action": np.asarray(acted, dtype=env.action_space.dtype)},
            reward=np.array(rewards),
            terminated=bool(terminated),
            truncated=bool(truncated),
        ),
        len(acted),
    )


def as_dataset(env_id: str, episodes: Iterable[Episode]) -> Dataset:
    """The episodes as training takes them."""
    env, episodes = gym.make(env_id), tuple(episodes)
    env.close()
    return Dataset(
        episodes=episodes,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_id=env_id,
        max_episode_steps=env.spec.max_episode_steps if env.spec else None,
        hash=fingerprint(episodes),
        real_steps=sum(len(episode) for episode in episodes),
    )


# ---- learning inside -------------------------------------------------------------------------------------------------


class DreamLanes:
    """Lanes of a world that start again in the step that ends them; luck by (lane's episode, step), as served."""

    observation_width: int

    def __init__(self, world: World, lanes: int, seed: int) -> None:
        self.world, self.action_space = world, world.spec.action_space
        self.limit = world.spec.max_episode_steps or 2**31
        self.observation_width = int(np.prod(world.spec.observation_space.shape or (1,)))
        self.seeds = torch.arange(lanes) + seed * 1_000_003
        self.lanes = lanes

    def draws(self, call: Call) -> Tensors:
        """The luck of all lanes for one call where they are now."""
        return lane_draws(self.world.draws[call], self.seeds, self.elapsed, call)

    def reset(self) -> Tensor:
        self.elapsed = torch.zeros(self.lanes, dtype=torch.int64)
        with torch.inference_mode():
            self.state = self.world.init(self.draws("init"))
            return self.world.emit(self.state)["observation"].clone()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        with torch.inference_mode():
            self.state, out = self.world.step(self.state, {"action": action}, self.draws("step"))
            final = self.world.emit(self.state)["observation"]
            self.elapsed += 1
            truncated = self.elapsed >= self.limit
            ended = out.terminated | truncated
            observation = final
            if bool(ended.any()):
                self.seeds = torch.where(ended, self.seeds + self.lanes, self.seeds)
                self.elapsed = torch.where(ended, 0, self.elapsed)
                fresh = self.world.init(self.draws("init"))
                for name, value in self.state.items():
                    mask = ended.view(-1, *[1] * (value.ndim - 1))
                    self.state[name] = torch.where(mask, fresh[name], value)
                observation = self.world.emit(self.state)["observation"]
        return observation.clone(), out.reward.clone(), out.terminated.clone(), truncated, final.clone()


def dream_and_score(world: World, env_id: str, seed: int) -> tuple[Agent, float, list[float]]:
    """An agent trained inside the world alone, its return there, and its returns over 100 real episodes."""
    config = SETTINGS[env_id]
    learned = learn(DreamLanes(world, config.lanes, seed), config, seed)
    return learned.agent, learned.return_in_world, real_returns(env_id, learned.agent, 100, JUDGED_FROM + 1000 * seed)


class Report:
    """Prints checks as they are made and remembers whether all passed."""

    def __init__(self) -> None:
        self.passed = True

    def check(self, what: str, figure: float, bar: str, met: bool) -> None:
        """One line: what was measured, the figure, what was asked, and whether it is met."""
        self.passed &= bool(met)
        print(f"  {'ok  ' if met else 'FAIL'} {what}: {figure:.4g} (asked: {bar})", flush=True)
