"""A compact PPO on any vector environment: what worlds are proven with.

One configuration an environment, chosen on its true dynamics alone, then used unchanged inside learned worlds. The last
policy is the result, never the best one. Knows no world and no service, only Gymnasium's interface.
Proximal policy optimisation: Schulman et al. 2017 (arXiv 1707.06347), eq. 7; advantages: Schulman et al. 2016
(arXiv 1506.02438), eq. 16.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor, nn

from simservice.errors import InvalidInput
from simservice.proving.agent_networks import Agent, Seen
from simservice.types import from_leaves, leaves_of, to_leaves

GREEDY_EPISODES = 100
GREEDY_STEPS = 2_000
GREEDY_SEED = 2**40  # far from the seeds that the agent learned with

_LAST_RATE = 0.05  # the learning rate falls linearly to this share of itself


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
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

    def __post_init__(self) -> None:
        if self.steps < self.lanes * self.horizon:
            raise InvalidInput("steps", f"{self.steps} are less than one rollout of {self.lanes} x {self.horizon}")


AGENTS = {
    "CartPole-v1": AgentConfig(steps=196_608, reward_scale=0.1),
    "Pendulum-v1": AgentConfig(horizon=50, steps=320_000, epochs=10, discount=0.95, reward_scale=0.1),
    "simservice/Catch-v0": AgentConfig(
        lanes=64, horizon=14, steps=26_880, epochs=4, minibatch=224, discount=0.95, entropy=0.01
    ),
}
"""By environment. Each was chosen on the oracle world alone, see docs/worlds.md."""


@dataclass(frozen=True)
class Learned:
    """A trained agent and what the training showed."""

    agent: Agent
    training_returns: list[float]  # of the last 100 episodes that the lanes finished, acting by chance
    world_returns: list[float]  # of about 100 episodes of the last policy, greedy as in reality
    steps: int
    seconds: float

    @property
    def world_return(self) -> float:
        """The mean of the greedy ones; NaN if none finished."""
        return float(np.mean(self.world_returns or [math.nan]))


@dataclass
class _Rollout:
    """(horizon, lanes, ...) of everything one update learns from."""

    seen: list[Seen]
    action: list[Tensor]
    log: list[Tensor]
    reward: list[Tensor]
    ended: list[Tensor]
    beyond: list[tuple[int, Tensor, Seen]]  # step, lanes, last observations of episodes that were only cut


def learn(
    envs: VectorEnv[Any, Any, Any], config: AgentConfig, seed: int, watch: Callable[[int, float], None] | None = None
) -> Learned:
    """Trains for a fixed number of steps. The environments must autoreset in the same step. Repeatable by seed."""
    if envs.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP or envs.num_envs != config.lanes:
        raise InvalidInput("envs", f"must be {config.lanes} that autoreset in the same step")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agent = Agent(envs.single_observation_space, envs.single_action_space)
    luck = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, eps=1e-5)
    began, space = time.perf_counter(), envs.single_observation_space
    observation = _tensors(to_leaves(space, envs.reset(seed=seed * config.lanes)[0], "observation"))
    running, finished = np.zeros(config.lanes), list[float]()
    updates = config.steps // (config.lanes * config.horizon)
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * max(_LAST_RATE, 1 - update / updates)
        agent.see(observation)
        rollout, observation = _play(envs, agent, observation, config, luck, running, finished)
        _improve(agent, optimizer, rollout, observation, config, luck)
        if watch is not None:
            watch((update + 1) * config.lanes * config.horizon, float(np.mean(finished[-100:] or [math.nan])))
    spent = time.perf_counter() - began
    inside = _greedy_returns(envs, agent, seed=seed * config.lanes + GREEDY_SEED)
    return Learned(agent, finished[-100:], inside, updates * config.lanes * config.horizon, spent)


def _greedy_returns(envs: VectorEnv[Any, Any, Any], agent: Agent, seed: int) -> list[float]:
    """Returns of the greedy policy in the world: equally many episodes of every lane, so short ones do not count more.

    Episodes that are still running after GREEDY_STEPS steps are left out.
    """
    space, quota = envs.single_observation_space, -(-GREEDY_EPISODES // envs.num_envs)
    observation, _ = envs.reset(seed=seed)
    running, played = np.zeros(envs.num_envs), [list[float]() for _ in range(envs.num_envs)]
    for _ in range(GREEDY_STEPS):
        action = agent.greedy(_tensors(to_leaves(space, observation, "observation")))
        observation, reward, terminated, truncated, _ = envs.step(action)
        running += reward
        for lane in np.flatnonzero(terminated | truncated):
            played[lane].append(float(running[lane]))
            running[lane] = 0.0
        if all(len(returns) >= quota for returns in played):
            break
    return [value for returns in played for value in returns[:quota]]


@torch.no_grad()
def _play(
    envs: VectorEnv[Any, Any, Any],
    agent: Agent,
    observation: Seen,
    config: AgentConfig,
    luck: torch.Generator,
    running: np.ndarray[Any, np.dtype[Any]],
    finished: list[float],
) -> tuple[_Rollout, Seen]:
    """Steps all lanes `horizon` times; what was seen, and the observation that comes next."""
    rollout = _Rollout([], [], [], [], [], [])
    space, actions = envs.single_observation_space, leaves_of(envs.single_action_space, "action")[0]
    start = int(getattr(envs.single_action_space, "start", 0))
    for step in range(config.horizon):
        output = agent.policy(agent.look(observation))
        action = agent.draw(output, luck)
        given = agent.taken(action).numpy()
        given = (given + start if agent.discrete else given.reshape(-1, *actions.shape)).astype(actions.dtype)
        following, reward, terminated, truncated, infos = envs.step(given)
        running += reward
        ended = terminated | truncated
        if ended.any():
            finished += running[ended].tolist()
            running[ended] = 0.0
            cut = np.flatnonzero(truncated & ~terminated)
            if len(cut):
                last = [to_leaves(space, infos["final_obs"][lane], "observation") for lane in cut]
                rows = {path: np.stack([leaves[path] for leaves in last]) for path in last[0]}
                rollout.beyond.append((step, torch.from_numpy(cut), _tensors(rows)))
        rollout.seen.append(observation)
        rollout.action.append(action)
        rollout.log.append(agent.log_probability(output, action)[0])
        rollout.reward.append(torch.from_numpy(np.asarray(reward, np.float32)) * config.reward_scale)
        rollout.ended.append(torch.from_numpy(ended.astype(np.float32)))
        observation = _tensors(to_leaves(space, following, "observation"))
    return rollout, observation


def _improve(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    rollout: _Rollout,
    after: Seen,
    config: AgentConfig,
    luck: torch.Generator,
) -> None:
    """One PPO update."""
    seen = {path: torch.cat([part[path] for part in rollout.seen]) for path in after}
    action, log = torch.cat(rollout.action), torch.cat(rollout.log)
    advantage, wanted = _advantages(agent, rollout, seen, after, config)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    parts = [list(network.parameters()) for network in (agent.policy, agent.value, agent.eyes)]
    for _ in range(config.epochs):
        for rows in torch.split(torch.randperm(len(wanted), generator=luck), config.minibatch):
            looked = agent.look({path: values[rows] for path, values in seen.items()})
            now, entropy = agent.log_probability(agent.policy(looked), action[rows])
            ratio = torch.exp(now - log[rows])
            gain = torch.minimum(
                ratio * advantage[rows], ratio.clamp(1 - config.clip, 1 + config.clip) * advantage[rows]
            )
            missed = (agent.value(looked).squeeze(-1) - wanted[rows]).square().mean()
            loss = -gain.mean() + 0.5 * missed - config.entropy * entropy.mean()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            for parameters in parts:  # apart: a large value error must not still the policy
                nn.utils.clip_grad_norm_(parameters, 0.5)
            optimizer.step()


@torch.no_grad()
def _advantages(agent: Agent, rollout: _Rollout, seen: Seen, after: Seen, config: AgentConfig) -> tuple[Tensor, Tensor]:
    """(advantage, value target), each (horizon x lanes,). A cut episode is worth what its last observation is."""
    steps, lanes = len(rollout.action), len(rollout.action[0])
    values = agent.value(agent.look(seen)).view(steps, lanes)
    last = agent.value(agent.look(after)).view(1, lanes)
    ended, reward = torch.stack(rollout.ended), torch.stack(rollout.reward)
    following = torch.cat([values[1:], last]) * (1 - ended)
    for step, cut, rows in rollout.beyond:
        following[step, cut] = agent.value(agent.look(rows)).squeeze(-1)
    surprise = reward + config.discount * following - values
    advantage, later = torch.zeros_like(values), torch.zeros(lanes)
    for step in reversed(range(steps)):
        later = surprise[step] + config.discount * config.trace * (1 - ended[step]) * later
        advantage[step] = later
    return advantage.flatten(), (advantage + values).flatten()


def _tensors(leaves: dict[str, Any]) -> Seen:
    return {path: torch.from_numpy(np.ascontiguousarray(array)).clone() for path, array in leaves.items()}


def policy_of(agent: Agent, observation_space: Any) -> Callable[[Any], Any]:
    """The greedy agent as the recorder takes policies: a batch of observations in, a batch of actions out."""

    def act(observation: Any) -> Any:
        leaves = _tensors(to_leaves(observation_space, observation, "observation"))
        return from_leaves(agent.action_space, {"action": agent.greedy(leaves)}, "action")

    return act
