"""A compact PPO on any batch of environments in this process: what the acceptance of worlds is measured with.

One configuration an environment, chosen on its true dynamics alone (`python benchmarks/vector_ppo.py`), then used
unchanged inside learned worlds. Knows no world and no service.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn


class Lanes(Protocol):
    """Environments that step together and start again by themselves in the step that ends them."""

    action_space: gym.Space[Any]
    observation_width: int

    def reset(self) -> Tensor:
        """Observations (B, width) of new episodes in all lanes."""

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(observation, reward, terminated, truncated, final_observation); final ones differ where a lane ended."""


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Settings of one training; a rollout is lanes x horizon steps."""

    lanes: int = 64
    horizon: int = 64
    steps: int = 400_000  # imagined, in all
    epochs: int = 6
    minibatch: int = 1024
    learning_rate: float = 1e-3
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    entropy: float = 0.0
    reward_scale: float = 1.0


SETTINGS = {
    "CartPole-v1": PPOConfig(steps=196_608, reward_scale=0.1),
    "Pendulum-v1": PPOConfig(horizon=50, steps=320_000, epochs=10, discount=0.95, reward_scale=0.1),
}


class Agent(nn.Module):
    """Two networks of 64 x 64 tanh: policy and value. Observations are normalised by running moments."""

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, action_space: gym.Space[Any]) -> None:
        super().__init__()
        self.discrete = isinstance(action_space, spaces.Discrete)
        if isinstance(action_space, spaces.Discrete):
            outputs = int(action_space.n)
        else:
            assert isinstance(action_space, spaces.Box)
            outputs = int(np.prod(action_space.shape))
            self.register_buffer("limit", torch.from_numpy(action_space.high.reshape(-1)))
        self.policy = _network(width, outputs, 0.01)
        self.value = _network(width, 1, 1.0)
        self.log_std = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.count = 1e-4

    def see(self, observation: Tensor) -> None:
        """Updates the moments by a batch of observations."""
        rows, mean, variance = len(observation), observation.mean(0), observation.var(0, unbiased=False)
        total, gap = self.count + rows, mean - self.mean
        self.variance.copy_(
            (self.variance * self.count + variance * rows + gap.square() * self.count * rows / total) / total
        )
        self.mean.add_(gap * rows / total)
        self.count = total

    def normalised(self, observation: Tensor) -> Tensor:
        return ((observation - self.mean) / torch.sqrt(self.variance + 1e-8)).clamp(-10, 10)

    def draw(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """A sampled action for each normalised observation, and its log-probability."""
        output = self.policy(seen)
        if self.discrete:
            gumbel = -torch.log(-torch.log(torch.rand_like(output).clamp_min(1e-9)))
            action = (output + gumbel).argmax(-1)
        else:
            action = output + torch.randn_like(output) * self.log_std.exp()
        return action, self.log_probability(output, action)[0]

    def log_probability(self, output: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """(log-probability, entropy) of actions under the policy's output."""
        if self.discrete:
            logs = torch.log_softmax(output, -1)
            return logs.gather(-1, action.unsqueeze(-1)).squeeze(-1), -(logs.exp() * logs).sum(-1)
        std = self.log_std.exp()
        log = -0.5 * ((action - output) / std).square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return log.sum(-1), (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(output))

    def taken(self, action: Tensor) -> Tensor:
        """What the environment is given for a drawn action."""
        return action if self.discrete else action.clamp(-1, 1) * self.limit

    @torch.no_grad()
    def act(self, observation: Tensor) -> Tensor:
        """The greedy action for each observation."""
        output = self.policy(self.normalised(observation))
        return output.argmax(-1) if self.discrete else self.taken(output)


@dataclass(frozen=True)
class Learned:
    """A trained agent and what the training showed."""

    agent: Agent
    return_in_world: float  # mean of the last 100 episodes the lanes finished
    steps: int
    seconds: float


def learn(lanes: Lanes, config: PPOConfig, seed: int, watch: Callable[[int, float], None] | None = None) -> Learned:
    """Trains for a fixed number of steps; the last policy is the result."""
    torch.manual_seed(seed)
    agent = Agent(lanes.observation_width, lanes.action_space)
    optimizer = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, eps=1e-5)
    observation, running, finished = lanes.reset(), torch.zeros(config.lanes), list[float]()
    updates, began = config.steps // (config.lanes * config.horizon), time.perf_counter()
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * max(0.05, 1 - update / updates)
        record: dict[str, list[Tensor]] = {
            name: [] for name in ("seen", "action", "log", "reward", "value", "next", "done")
        }
        agent.see(observation)
        with torch.no_grad():
            for _ in range(config.horizon):
                seen = agent.normalised(observation)
                action, log = agent.draw(seen)
                observation, reward, terminated, truncated, final = lanes.step(agent.taken(action))
                running += reward
                ended = terminated | truncated
                if bool(ended.any()):
                    finished += running[ended].tolist()
                    running[ended] = 0.0
                for name, value in (
                    ("seen", seen),
                    ("action", action),
                    ("log", log),
                    ("reward", reward * config.reward_scale),
                    ("next", torch.where(terminated, 0.0, 1.0)),
                    ("done", ended.float()),
                    ("value", agent.normalised(final)),
                ):
                    record[name].append(value)
        _improve(agent, optimizer, {name: torch.stack(values) for name, values in record.items()}, config)
        if watch is not None:
            watch((update + 1) * config.lanes * config.horizon, float(np.mean(finished[-100:] or [math.nan])))
    return Learned(
        agent,
        float(np.mean(finished[-100:] or [math.nan])),
        updates * config.lanes * config.horizon,
        time.perf_counter() - began,
    )


def _improve(agent: Agent, optimizer: torch.optim.Optimizer, data: dict[str, Tensor], config: PPOConfig) -> None:
    """One PPO update; data is (horizon, lanes, ...), `value` holds the normalised observations that followed."""
    with torch.no_grad():
        values = agent.value(data["seen"]).squeeze(-1)
        following = agent.value(data["value"]).squeeze(-1) * data["next"]
        surprise = data["reward"] + config.discount * following - values
        advantage, later = torch.zeros_like(values), torch.zeros(values.shape[1])
        for t in reversed(range(len(values))):
            later = surprise[t] + config.discount * config.trace * (1 - data["done"][t]) * later
            advantage[t] = later
    flat = {name: data[name].flatten(0, 1) for name in ("seen", "action", "log")}
    wanted, advantage = (advantage + values).flatten(), advantage.flatten()
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(wanted)).split(config.minibatch):
            output = agent.policy(flat["seen"][rows])
            log, entropy = agent.log_probability(output, flat["action"][rows])
            ratio = torch.exp(log - flat["log"][rows])
            gain = torch.minimum(
                ratio * advantage[rows], ratio.clamp(1 - config.clip, 1 + config.clip) * advantage[rows]
            )
            missed = (agent.value(flat["seen"][rows]).squeeze(-1) - wanted[rows]).square().mean()
            loss = -gain.mean() + 0.5 * missed - config.entropy * entropy.mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for network in (agent.policy, agent.value):  # apart: a large value error must not still the policy
                nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()


def _network(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    layers = [nn.Linear(inputs, 64), nn.Linear(64, 64), nn.Linear(64, outputs)]
    for layer, size in zip(layers, (math.sqrt(2), math.sqrt(2), gain), strict=True):
        nn.init.orthogonal_(layer.weight, size)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def real_returns(env_id: str, agent: Agent, episodes: int, first_seed: int) -> list[float]:
    """Undiscounted returns of the greedy policy in the real environment, a seed an episode."""
    env, returns = gym.make(env_id), []
    for seed in range(first_seed, first_seed + episodes):
        observation, _ = env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            action = agent.act(torch.from_numpy(np.asarray(observation, dtype=np.float32))[None])[0].numpy()
            observation, reward, terminated, truncated, _ = env.step(int(action) if agent.discrete else action)
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    env.close()
    return returns


class TrueLanes:
    """The true dynamics of CartPole-v1 or Pendulum-v1 over many lanes, for choosing the settings above."""

    def __init__(self, env_id: str, lanes: int, seed: int) -> None:
        self.envs = gym.make_vec(
            env_id,
            lanes,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP},
        )
        self.action_space = self.envs.single_action_space
        assert self.envs.single_observation_space.shape is not None
        self.observation_width = self.envs.single_observation_space.shape[0]
        self.seed = seed

    def reset(self) -> Tensor:
        return torch.from_numpy(self.envs.reset(seed=self.seed)[0])

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        observation, reward, terminated, truncated, infos = self.envs.step(action.numpy())
        final = observation.copy()
        for lane in np.flatnonzero(terminated | truncated):
            final[lane] = infos["final_obs"][lane]
        return (
            torch.from_numpy(observation.copy()),
            torch.from_numpy(reward).float(),
            torch.from_numpy(terminated),
            torch.from_numpy(truncated),
            torch.from_numpy(final),
        )


def main() -> None:
    """Shows what the settings reach on the true dynamics."""
    torch.set_num_threads(1)
    for env_id in sys.argv[1:] or SETTINGS:
        config = SETTINGS[env_id]
        for seed in range(2):
            began = time.process_time()
            learned = learn(TrueLanes(env_id, config.lanes, seed), config, seed, _say)
            returns = real_returns(env_id, learned.agent, 30, 10_000)
            score = f"{np.mean(returns):.0f} (worst {min(returns):.0f})"
            seconds = time.process_time() - began
            print(f"\n{env_id} seed {seed}: {score} after {learned.steps:,} steps, {seconds:.0f} CPU s", flush=True)


def _say(steps: int, score: float) -> None:
    if steps % 32_768 < 4096:
        print(f"{steps:,}: {score:.0f}", end="; ", flush=True)


if __name__ == "__main__":
    main()
