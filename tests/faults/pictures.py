"""SB3's PPO in worlds of pictures that lose replicas in mid-episode: it learns what it would have learned, bit for bit,
and reality pays it.

The worlds are those of `simservice prove`, if their proofs have been made in runs/prove, else they are trained here.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from line import Line, at_least, exactly
from replicas import busiest, stored_bytes, wait_until_up
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor
from stage import TENANTS

from simservice.client.session import RemoteSession
from simservice.data.environments import qualified
from simservice.proving.parts import record_dataset
from simservice.proving.recipes import find
from simservice.proving.scoring import SCORE_SEED
from simservice.training.trainer import TrainConfig, train

ROOT = Path(__file__).parents[2]
LANES, STEPS, EPISODES = 64, 26_880, 100
COMPARED = 3_584  # imagined steps after which an agent is held against that of the undisturbed run
KILLED_AT = (17, 37, 290)  # steps of all lanes; a rollout has 14, an episode 7
AHEAD_S = 0.01  # a kill comes so long after its step was asked for: within it
REPLICAS = 2


@dataclass
class Kills:
    """Ends the replica that holds the lanes by SIGKILL, while it makes the steps of these numbers."""

    service: Any
    world: str
    at: tuple[int, ...]
    killed: list[int] = field(default_factory=list)
    stored: list[float] = field(default_factory=list)  # bytes of the session in the store, then

    def before(self, step: int) -> None:
        """Called before each step of all lanes."""
        if step not in self.at:
            return
        wait_until_up(self.service, self.world, REPLICAS, killed=self.killed)
        pid = busiest(self.service, self.world)
        self.stored.append(stored_bytes(self.service, self.world))
        self.killed.append(pid)
        threading.Timer(AHEAD_S, os.kill, (pid, signal.SIGKILL)).start()


def play(
    session: RemoteSession, steps: int, kills: Kills | None = None, first_seed: int = 0
) -> list[np.ndarray[Any, Any]]:
    """Everything that seeded lanes give under fixed actions, ends and fresh starts included."""
    found = [session.reset(seeds=first_seed + np.arange(LANES, dtype=np.int64) * 7919).observation["observation"]]
    for step in range(steps):
        if kills is not None:
            kills.before(step)
        result = session.step({"action": (np.arange(LANES) * 5 + step * step) % 3})
        found += [result.observation["observation"], result.reward, result.terminated, result.truncated]
    return found


def different(found: list[np.ndarray[Any, Any]], wanted: list[np.ndarray[Any, Any]]) -> int:
    """Arrays that are not the same, bit for bit."""
    pairs = zip(found, wanted, strict=True)
    return sum(one.dtype != other.dtype or one.tobytes() != other.tobytes() for one, other in pairs)


def sb3() -> Any:
    """The example agent, as users have it."""
    specification = importlib.util.spec_from_file_location("ppo_sb3", ROOT / "agents" / "ppo_sb3.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def world_of(recipe_name: str, folder: Path, told: Any) -> Path:
    """The folder of the recipe's world: the first one of its proof, or one that is trained now."""
    proven = ROOT / "runs" / "prove" / recipe_name / "seed0" / recipe_name
    if (proven / "world.json").is_file():
        return proven
    recipe, out = find(recipe_name), folder / recipe_name
    if not out.is_dir():
        dataset, _ = record_dataset(recipe, 0, folder / f"{recipe_name}-data")
        config = TrainConfig(overrides=recipe.overrides, patience=recipe.patience)
        train(dataset, recipe.family, out, config=config, progress=told)
    return out


class Watch(BaseCallback):
    """Tells how far it is, lets replicas be killed before the next step, and keeps the agent as it is at COMPARED."""

    def __init__(self, told: Any, kills: Kills | None = None, *, goes_on: bool) -> None:
        super().__init__()
        self.told, self.kills, self.goes_on = told, kills, goes_on
        self.agent: list[torch.Tensor] = []

    def _on_step(self) -> bool:
        self.told(f"{self.num_timesteps:,} imagined steps", self.num_timesteps / (STEPS if self.goes_on else COMPARED))
        if self.num_timesteps == COMPARED:
            self.agent = [tensor.clone() for tensor in self.model.policy.state_dict().values()]
            return self.goes_on
        if self.kills is not None:
            self.kills.before(self.n_calls)
        return True


def learned(stage: Any, world: str, seed: int, watch: Watch) -> tuple[Any, int]:
    """The agent, and how often its client had to come back."""
    agents = sb3()
    doors = {"patience_s": 200.0, "token": stage.tokens[TENANTS[0]]}
    envs = agents.ServedVecEnv(stage.ray.address, world, LANES, **doors)
    model = agents.learner(VecMonitor(envs), seed)
    model.learn(STEPS, callback=watch)
    reconnects = envs.envs.session.reconnects
    envs.close()
    return model, reconnects


def real_return(model: Any, env_id: str) -> float:
    """The mean return of the greedy agent in the real environment."""
    envs = gym.make_vec(qualified(env_id), num_envs=EPISODES, vectorization_mode="sync")
    observation, _ = envs.reset(seed=SCORE_SEED)
    total, running = np.zeros(EPISODES), np.ones(EPISODES, dtype=bool)
    while running.any():
        observation, reward, terminated, truncated, _ = envs.step(model.predict(observation, deterministic=True)[0])
        total += np.where(running, reward, 0.0)
        running &= ~(terminated | truncated)
    envs.close()
    return float(total.mean())


def agents_in(recipe_name: str) -> Any:
    """The work of one world's line."""

    def work(stage: Any, options: Any, told: Any) -> Any:
        recipe = find(recipe_name)
        folder = world_of(recipe_name, stage.folder, lambda words, share: told(words, share / 4))
        stage.ray.deploy(folder, (REPLICAS, REPLICAS))
        world = folder.name
        try:
            yield from _trajectories(stage, world)
            yield from _agents(stage, world, recipe, options, told)
        finally:
            stage.ray.remove(world)

    return work


def _trajectories(stage: Any, world: str) -> Any:
    found = []
    kills = Kills(stage.ray, world, (87, 143))  # behind a snapshot; the third and the third step of an episode
    for disturbed in (False, True):
        session = RemoteSession(
            stage.ray.address, world, num_envs=LANES, patience_s=200.0, token=stage.tokens[TENANTS[0]]
        )
        found.append(play(session, 160, kills if disturbed else None))
        reconnects = session.reconnects
        session.close()
    yield exactly("replicas killed in mid-episode, fixed actions", len(kills.killed), 2)
    yield at_least("times the client came back", reconnects, 2)
    yield exactly(f"arrays of {len(found[0]):,} that differ from the undisturbed run's", different(*found), 0)
    yield at_least(f"KB of {LANES} lanes in the store at a kill", min(kills.stored) / 1024, 1)


def _agents(stage: Any, world: str, recipe: Any, options: Any, told: Any) -> Any:
    wait_until_up(stage.ray, world, REPLICAS)
    calm = Watch(lambda words, share: told(words, 0.25 + 0.15 * share), goes_on=False)
    learned(stage, world, options.seed, calm)
    kills = Kills(stage.ray, world, KILLED_AT[:2] if options.short else KILLED_AT)
    watch = Watch(lambda words, share: told(words, 0.4 + 0.55 * share), kills, goes_on=not options.short)
    model, reconnects = learned(stage, world, options.seed, watch)
    yield exactly(f"replicas killed while PPO plays {LANES} lanes", len(kills.killed), len(kills.at))
    yield at_least("times the agent's client came back", reconnects, len(kills.at))
    apart = sum(not torch.equal(one, other) for one, other in zip(calm.agent, watch.agent, strict=True))
    what = f"of the agent's {len(calm.agent)} tensors after {COMPARED:,} steps differ from the undisturbed run's"
    yield exactly(what, apart, 0)
    if not options.short:
        bar = next(bar.least for bar in recipe.bars if bar.figure == "real_return")
        what = f"real return over {EPISODES} episodes after {STEPS:,} imagined steps"
        yield at_least(what, real_return(model, recipe.env_id), bar)


LINES = tuple(
    Line(name, f"SB3's PPO in {what} of Catch on two replicas, one killed twice in mid-episode", agents_in(name))
    for name, what in (("tokens-catch", "a token world"), ("diffusion-catch", "a diffusion world"))
)
