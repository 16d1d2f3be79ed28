"""What proofs (`simservice prove`, `simservice examine`) do not ask of vector worlds: starts, rounds of data, speed.

    python benchmarks/world_acceptance.py [a7e a16 dyna]

Every check prints its figures and whether they meet the bar; the exit status says whether all did. Real steps that a
world or an agent may learn from are counted; those that only judge (100 episodes an agent) are not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from world_lanes import Report, as_dataset, record

from simservice.data.collect import collect, collect_episodes
from simservice.proving.agent import AGENTS, learn, policy_of
from simservice.proving.lanes import WorldLanes
from simservice.proving.rows.ground import distances, told_apart
from simservice.training.trainer import TrainConfig, train
from simservice.types import Array
from simservice.worlds.checkpoint import load
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import World

RESETS = 130  # that the starts are learned from
JUDGED = 1_500  # starts, and as many fresh resets, half of which the classifier is given
JUDGED_FROM = 1_000_000  # seeds of what judges: none of them is recorded


def dyna(report: Report, folder: Path) -> None:
    """CartPole from random play: 1,000 real steps, then 500 of the agent's own a round, to 3,000 in all."""
    config = AGENTS["CartPole-v1"]
    for seed in range(3):
        data, best = record("CartPole-v1", 1_000, 50 + seed, "random"), 0.0
        for turn in range(5):
            steps, out = sum(len(episode) for episode in data), folder / f"dyna-{seed}-{turn}"
            dataset = as_dataset("CartPole-v1", data)
            train(dataset, "ensemble", out, config=TrainConfig(seed=seed))
            learned = learn(WorldLanes(load(out).world, config.lanes), config, 10 * seed + turn)
            act = policy_of(learned.agent, dataset.observation_space)
            played = collect_episodes("CartPole-v1", episodes=100, seed=JUDGED_FROM + 10 * seed + turn, policy=act)
            real = float(np.mean([episode.undiscounted_return for episode in played]))
            best = max(best, real)
            inside = f"in the world {learned.world_return:.0f}, in reality {real:.0f}"
            print(f"  seed {seed}: {steps:,} real steps, {inside}", flush=True)
            if real >= 475:
                break
            data = [
                *data,
                *collect(
                    "CartPole-v1",
                    steps=500,
                    seed=1_000 * (seed + 1) + turn,
                    policy=act,
                    policy_name="agent",
                    epsilon=0.1,
                ),
            ]
        report.check(f"seed {seed}, real return by 3,000 real steps", best, ">= 475", best >= 475)


def a7e(report: Report, folder: Path) -> None:
    """Starts of a world that saw 130 resets against fresh resets: a classifier's area under the curve; no replays."""
    for env_id in ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0"):
        seen, real = _resets(env_id, RESETS, 0), _resets(env_id, JUDGED, JUDGED_FROM)
        like = record(env_id, 1, 0, "random")[0]
        data = [replace(like, observation={"observation": np.stack([row, row])}) for row in seen]
        train(as_dataset(env_id, data), "persistence", folder / env_id, config=TrainConfig())
        new = _starts(load(folder / env_id).world, JUDGED)
        area = told_apart(new, real)
        bootstrap = told_apart(seen[np.random.default_rng(0).integers(RESETS, size=JUDGED)], real)
        print(f"  {env_id}: repeating the recorded resets would give {bootstrap:.2f}")
        report.check(f"{env_id}: area under the curve, starts against resets", area, "<= 0.6", area <= 0.6)
        fresh = float((distances(new, seen).min(axis=1) > 0).mean())
        report.check(f"{env_id}: share of starts that were never recorded", fresh, ">= 0.9", fresh >= 0.9)


def a16(report: Report, folder: Path) -> None:
    """Lane-steps a second of one thread, luck and observations included, at 16 lanes (and more, for information)."""
    dataset = as_dataset("CartPole-v1", record("CartPole-v1", 600, 3, "mixed"))
    for family, overrides in (("ensemble", {"updates": 200}), ("linear", {}), ("persistence", {}), ("oracle", {})):
        train(dataset, family, folder / family, config=TrainConfig(overrides=overrides))
        world, speeds = load(folder / family).world, dict[int, float]()
        for lanes in (16, 64, 256):
            speeds[lanes] = lanes / np.median(_step_seconds(world, lanes, 300 if family == "oracle" else 3_000))
        print(f"  {family}: " + ", ".join(f"{lanes} lanes {speed:,.0f}" for lanes, speed in speeds.items()))
        if family == "ensemble":
            report.check("lane-steps a second at 16 lanes, median step", speeds[16], ">= 30000", speeds[16] >= 30_000)


def _step_seconds(world: World, lanes: int, steps: int) -> list[float]:
    seeds, elapsed = torch.arange(lanes), torch.zeros(lanes, dtype=torch.int64)
    action, spent = {"action": torch.ones(lanes, dtype=torch.int64)}, list[float]()
    with torch.inference_mode():
        start = world.init(lane_draws(world.draws["init"], seeds, elapsed, "init"))
        for _ in range(steps):
            began = time.perf_counter()
            state, _ = world.step(start, action, lane_draws(world.draws["step"], seeds, elapsed, "step"))
            world.emit(state)
            spent.append(time.perf_counter() - began)
    return spent


def _resets(env_id: str, count: int, first_seed: int) -> Array:
    env = gym.make(env_id)
    rows = np.stack([env.reset(seed=first_seed + i)[0] for i in range(count)]).astype(np.float32)
    env.close()
    return rows


def _starts(world: World, count: int) -> Array:
    seeds = torch.arange(count)
    state = world.init(lane_draws(world.draws["init"], seeds, torch.zeros_like(seeds), "init"))
    rows: Array = world.emit(state)["observation"].numpy()
    return rows


CHECKS = {"a7e": a7e, "a16": a16, "dyna": dyna}


def main() -> None:
    """Runs the named checks, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; all by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = Report()
    for name in arguments.checks or CHECKS:
        if name not in CHECKS:
            parser.error(f"no check {name!r}; there are: {', '.join(CHECKS)}")
        print(f"{name}: {CHECKS[name].__doc__}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            CHECKS[name](report, Path(folder))
    sys.exit(not report.passed)


if __name__ == "__main__":
    main()
