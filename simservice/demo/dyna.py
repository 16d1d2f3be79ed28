"""The demo's rounds: train a world on all real steps so far, serve it, learn in it, check the policy in reality."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from simservice.client.policy import Policy, load_policy
from simservice.data.collect import RealStepCounter, collect, collect_episodes
from simservice.data.episodes import Dataset
from simservice.data.minari import save_dataset
from simservice.demo.agent_process import AgentProcess, News
from simservice.demo.rounds import Check, Rules, episode_limit, kept, next_move, wants_more
from simservice.demo.stages import Stages
from simservice.serving.service import RayService
from simservice.training.trainer import TrainConfig, train
from simservice.types import Episode

FIRST_TRAINING = {"total_steps": 57_344}
"""From fresh weights: also after a policy failed in reality, since what it had learned was the old world's faults."""

LATER_TRAINING = {"total_steps": 32_768, "learning_rate": 1e-3}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is played, and by which rules."""

    env_id: str = "CartPole-v1"
    world: str = "cartpole"
    family: str = "ensemble"
    world_settings: Mapping[str, Any] = field(default_factory=lambda: {"updates": 1500})
    lanes: int = 64  # that the agent steps with one message
    seed: int = 0
    rules: Rules = field(default_factory=Rules)


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round did."""

    number: int
    world: str  # name@version
    folder: Path
    policy: Policy
    real_steps_trained: int  # that the world was trained on, held-out episodes included
    check: Check
    learning: Sequence[tuple[int, float]]  # imagined steps, return in the dream
    last: News  # of the agent's training
    seconds: float


@dataclass(kw_only=True)
class Dyna:
    """The running parts that the rounds use, and what they have recorded."""

    plan: Plan
    folder: Path
    stages: Stages
    agent: AgentProcess
    service: Future[RayService]  # Ray Serve comes up meanwhile
    counter: RealStepCounter
    dataset: Dataset | None = None
    rounds: list[Round] = field(default_factory=list)

    def run(self) -> Round:
        """All rounds; returns the one whose policy is kept."""
        self._record_first_steps()
        while True:
            self.rounds.append(self._round(len(self.rounds) + 1))
            checks = [played.check for played in self.rounds]
            if next_move(checks, self.plan.rules) == "stop":
                return self.rounds[kept(checks, self.plan.rules)]

    def _record_first_steps(self) -> None:
        plan, steps = self.plan, self.plan.rules.first_steps
        with self.stages.stage(f"{steps:,} real steps of {plan.env_id}, at random", "real steps") as line:
            episodes = collect(plan.env_id, steps=steps, seed=plan.seed, policy="random", budget=self.counter)
            self._keep(episodes)
            line.result = f"{len(episodes)} episodes"

    def _round(self, number: int) -> Round:
        began, trained_on = time.monotonic(), self.counter.steps
        folder = self._train_world(number)
        with self.stages.stage(f"round {number}: serving the world", "serving"):
            world = self.service.result().deploy(folder)
        policy, learning, last = self._learn(number, world)
        check = self._check(number, policy)
        return Round(
            number=number,
            world=world,
            folder=folder,
            policy=policy,
            real_steps_trained=trained_on,
            check=check,
            learning=learning,
            last=last,
            seconds=time.monotonic() - began,
        )

    def _train_world(self, number: int) -> Path:
        assert self.dataset is not None
        title = f"round {number}: a world from {self.counter.steps:,} real steps"
        with self.stages.stage(title, "training worlds") as line:
            folder = self.folder / "worlds" / f"round-{number}" / self.plan.world
            torch.set_num_threads(1)  # a second thread makes networks this small many times slower
            config = TrainConfig(seed=self.plan.seed, overrides=self.plan.world_settings)
            train(self.dataset, self.plan.family, folder, config=config, progress=line.show)
        return folder

    def _learn(self, number: int, world: str) -> tuple[Policy, list[tuple[int, float]], News]:
        learning: list[tuple[int, float]] = []
        go_on = number > 1 and self.rounds[-1].check.promising(self.plan.rules)
        settings: dict[str, Any] = LATER_TRAINING if go_on else FIRST_TRAINING
        saved = self.folder / "policies" / f"round-{number}.npz"
        job = {
            "job": "dream",
            "address": self.service.result().address,
            "world": world,
            "seed": 1000 * self.plan.seed + number,
            "go_on": go_on,
            "policy": str(saved),
            "settings": {**settings, "num_envs": self.plan.lanes},
        }
        with self.stages.stage(f"round {number}: PPO in the dream", "learning in the dream") as line:

            def progress(news: News) -> None:
                learning.append((news["steps"], news["return_mean"]))
                words = f"{news['steps']:,} imagined steps, return {news['return_mean']:.0f}"
                line.show(words, news["steps"] / news["total_steps"])

            last = self.agent.train(job, progress)
            speed = last["steps"] / last["elapsed_s"]
            line.result = f"dream return {last['return_mean']:.0f}, {speed:,.0f} imagined steps/s"
        return load_policy(saved), learning, last

    def _check(self, number: int, policy: Policy) -> Check:
        rules, check, episodes = self.plan.rules, Check(), list[Episode]()
        with self.stages.stage(f"round {number}: a few counted real steps with its policy", "real steps") as line:
            while wants_more(check, number, rules.budget - self.counter.steps, rules):
                [episode] = collect_episodes(
                    self.plan.env_id,
                    episodes=1,
                    seed=100_000 + 10_000 * self.plan.seed + 100 * number + len(episodes),
                    policy=policy.greedy(),
                    policy_name=f"round-{number}",
                    max_steps=episode_limit(check, rules.budget - self.counter.steps, rules),
                    budget=self.counter,
                )
                episodes.append(episode)
                ended = (episode.undiscounted_return,) if episode.terminated or episode.truncated else ()
                check = Check(finished=check.finished + ended, steps=check.steps + len(episode))
            if episodes:
                self._keep(episodes)
            returns = ", ".join(f"{value:.0f}" for value in check.finished) or "none finished"
            line.result = f"returns {returns}; {self.counter.steps:,} real steps used so far"
        return check

    def _keep(self, episodes: Sequence[Episode]) -> None:
        version = 0 if self.dataset is None else len(self.rounds) + 1
        self.dataset = save_dataset(
            episodes,
            f"demo/{self.plan.world}/steps-v{version}",
            env_id=self.plan.env_id,
            root=self.folder / "datasets",
            append_to=self.dataset,
            metadata={"seed": self.plan.seed},
        )
