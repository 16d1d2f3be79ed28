"""Runs a recipe of pictures without its controls, a process a seed: `python benchmarks/picture_rows.py tokens-catch`.

Record, train, an agent in the world's own lanes, its score in reality, the recipe's figures, steps a second: what
`simservice prove NAME` does, but for the client, the sealed processes, the controls and the card. Needs torch, numpy,
scipy, gymnasium and safetensors only, so it runs where the service is not installed; seeds run at the same time, one
thread each. Prints a line a seed and one a bar, and writes NAME.json to --out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from simservice.data.collect import RealStepCounter
from simservice.data.environments import close, make_environment
from simservice.data.episodes import Dataset, fingerprint
from simservice.proving.agent import learn
from simservice.proving.card import number
from simservice.proving.lanes import WorldLanes
from simservice.proving.recipe import Figures, Recipe, Trial
from simservice.proving.recipes import find
from simservice.proving.record import record
from simservice.proving.scoring import score
from simservice.training.trainer import TrainConfig, train
from simservice.worlds import registry
from simservice.worlds.checkpoint import load
from simservice.worlds.world import World

SPEED_LANES = 16
SPEED_SECONDS = 3.0


def recorded(recipe: Recipe, seed: int) -> tuple[Dataset, RealStepCounter]:
    """The recipe's real data, in memory."""
    counter = RealStepCounter(budget=recipe.real_steps)
    episodes = tuple(record(recipe.env_id, recipe.real_steps, seed, recipe.behaviour, counter, recipe.env_kwargs))
    environment = make_environment(recipe.env_id, recipe.env_kwargs)
    dataset = Dataset(
        episodes=episodes,
        observation_space=environment.observation_space,
        action_space=environment.action_space,
        env_id=recipe.env_id,
        env_kwargs=recipe.env_kwargs,
        max_episode_steps=environment.spec.max_episode_steps if environment.spec else None,
        dataset_id=f"prove/{recipe.name}-v0",
        hash=fingerprint(episodes),
        real_steps=counter.steps,
        metadata={"seed": seed, "policy": recipe.behaviour},
    )
    close(environment)
    return dataset, counter


def steps_a_second(world: World) -> float:
    """A16: by processor time, one thread, 16 lanes with autoreset and pictures."""
    envs = WorldLanes(world, SPEED_LANES)
    envs.action_space.seed(0)
    envs.reset(seed=0)
    actions = [envs.action_space.sample() for _ in range(16)]
    for action in actions[:3]:
        envs.step(action)
    began, steps = time.thread_time(), 0
    while (spent := time.thread_time() - began) < SPEED_SECONDS:
        envs.step(actions[steps % len(actions)])
        steps += 1
    return steps * SPEED_LANES / spent


def one_seed(name: str, seed: int, out: Path, with_agent: bool) -> Figures:
    """The figures of one world of the recipe, and of the agent that learned in it."""
    torch.set_num_threads(1)
    recipe = find(name)
    dataset, counter = recorded(recipe, seed)
    folder = out / f"{name}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    began, worked = time.monotonic(), time.process_time()
    config = TrainConfig(seed=seed, overrides=recipe.overrides, patience=recipe.patience, name=recipe.name)
    train(dataset, recipe.family, folder / "world", config=config)
    figures: Figures = {
        "real_steps": float(counter.steps),
        "train_s": time.monotonic() - began,
        "train_cpu_s": time.process_time() - worked,
    }
    world = load(folder / "world").world
    trial = Trial(recipe=recipe, seed=seed, world=world, dataset=dataset, folder=folder)
    figures |= recipe.measure(trial)
    figures["steps_a_second"] = steps_a_second(world)
    _say(name, seed, figures)
    if recipe.agent is not None and with_agent:
        learned = learn(WorldLanes(world, recipe.agent.lanes), recipe.agent, seed)
        save_file(dict(learned.agent.state_dict()), folder / "agent.safetensors")
        judge, seen = RealStepCounter(), {episode.seed for episode in dataset.episodes}
        real = score(recipe.env_id, recipe.env_kwargs, folder / "agent.safetensors", seed, judge, seen)
        figures |= {
            "world_return": learned.world_return,
            "real_return": float(np.mean(real)),
            "imagined_steps": float(learned.steps),
            "agent_s": learned.seconds,
            "minutes": (time.monotonic() - began) / 60,
        }
        _say(name, seed, figures)
    return figures


def _say(name: str, seed: int, figures: Figures) -> None:
    shown = " ".join(f"{key}={value:.4g}" for key, value in figures.items())
    print(f"{name} seed {seed}: {shown}", flush=True)


def main() -> None:
    """Runs the named recipes, every seed of each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/rows"))
    parser.add_argument("--no-agent", action="store_true", help="figures of the world alone")
    given = parser.parse_args()
    for family in {find(name).family for name in given.names} - set(registry.names()):  # where nothing is installed
        os.environ[registry.EXTRA_FAMILIES] = f"simservice.worlds.families.{family}:{family.capitalize()}"
    seeds = [int(seed) for seed in given.seeds.split(",")]
    jobs = [(name, seed, given.out.absolute(), not given.no_agent) for name in given.names for seed in seeds]
    with multiprocessing.get_context("spawn").Pool(min(len(jobs), multiprocessing.cpu_count())) as pool:
        found = pool.starmap(one_seed, jobs, chunksize=1)
    for name in given.names:
        own = [figures for (job, *_), figures in zip(jobs, found, strict=True) if job == name]
        report(find(name), own, given.out)


def report(recipe: Recipe, found: list[Figures], out: Path) -> None:
    """Prints every bar beside what was seen over the seeds, and writes all figures."""
    rows: list[dict[str, Any]] = []
    for bar in recipe.bars:
        seen, met = bar.seen(found), bar.met(found)
        rows.append({"figure": bar.figure, "across": bar.across, "bar": bar.words, "seen": seen, "met": met})
        word = "ok" if met else "SHORT"
        print(f"{recipe.row} {recipe.name}: {bar.figure} ({bar.across}) {bar.words}: {number(seen)} {word}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{recipe.name}.json").write_text(json.dumps({"bars": rows, "seeds": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
