"""What the acceptance table asks of diffusion worlds, in one process without a server.

    python benchmarks/diffusion_rows.py A4  --seeds 0,1,2     Catch: dreams, and PPO inside, with 1 step and with 3
    python benchmarks/diffusion_rows.py A4b --seeds 0,1,2     whether actions count, continuous and discrete
    python benchmarks/diffusion_rows.py A7c --seeds 0,1,2     what the uncertainty knows
    python benchmarks/diffusion_rows.py A7e --seeds 0,1,2     generated starts beside real ones
    python benchmarks/diffusion_rows.py A16                   steps a second, 16 lanes, one thread

Prints one line a seed and one a figure with its bar. With --processes 3 three seeds are worked on at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from simservice.data.collect import RealStepCounter, collect
from simservice.data.environments import make_environment
from simservice.data.episodes import Dataset, fingerprint
from simservice.grounds import catch
from simservice.proving.agent import AGENTS, learn, policy_of
from simservice.proving.lanes import WorldLanes
from simservice.proving.measures_pictures import action_figures, catch_figures
from simservice.proving.recipe import Recipe, Trial
from simservice.training.trainer import TrainConfig, train
from simservice.training.windows import cut_windows, forecast, spread
from simservice.types import WorldSpec
from simservice.worlds import registry
from simservice.worlds.checkpoint import load
from simservice.worlds.noise import lane_draws
from simservice.worlds.rollout import imagine
from simservice.worlds.world import World

CATCH, POINT_MASS = "simservice/Catch-v0", "simservice/PointMass-v0"
REAL_STEPS = {CATCH: 2_800, POINT_MASS: 3_000}
SCORED_EPISODES = 100
BARS = {
    "train_s": "<= 300", "mse_of_persistence": "<= 0.1", "open_loop_exact": ">= 0.98", "reward_accuracy": ">= 0.98",
    "end_accuracy": ">= 0.98", "real_return": ">= 0.95", "action_ratio": ">= 1.5", "spearman": ">= 0.5",
    "off_coverage_auroc": ">= 0.9", "starts_auc": "<= 0.6",
}  # fmt: skip


def recorded(env_id: str, seed: int) -> Dataset:
    """The budget's random steps."""
    counter, environment = RealStepCounter(REAL_STEPS[env_id]), make_environment(env_id)
    episodes = tuple(collect(env_id, steps=REAL_STEPS[env_id], seed=seed, budget=counter))
    return Dataset(
        episodes=episodes,
        observation_space=environment.observation_space,
        action_space=environment.action_space,
        env_id=env_id,
        max_episode_steps=environment.spec.max_episode_steps if environment.spec else None,
        hash=fingerprint(episodes),
        real_steps=counter.steps,
    )


def trained(env_id: str, seed: int, folder: Path, **overrides: object) -> tuple[Trial, float]:
    """A world of the family, and how long its training took."""
    dataset, out = recorded(env_id, seed), folder / f"{env_id.rpartition('/')[2]}-{seed}"
    began = time.perf_counter()
    train(dataset, "diffusion", out, config=TrainConfig(seed=seed, overrides=overrides), progress=told)
    seconds = time.perf_counter() - began
    recipe = Recipe(
        name="diffusion", row="", title="", env_id=env_id, real_steps=dataset.real_steps, family="diffusion"
    )
    return Trial(recipe, seed, load(out).world, dataset, out), seconds


def told(words: str, share: float) -> None:
    """One line, always the same one, on stderr."""
    print(f"\r{share:4.0%} {words:150.150}", end="", flush=True, file=sys.stderr)


def stepping(world: World, steps: int) -> World:
    """The same world with another number of Euler steps."""
    other = registry.create("diffusion", world.spec, {**vars(world.config), "steps": steps})
    other.load_state_dict(world.state_dict())
    other.set_starts(world.starts())
    return other.eval().requires_grad_(False)


def catch_row(seed: int, folder: Path, **overrides: object) -> dict[str, float]:
    """A4: figures of the dream, and the real return of the last agent trained inside, with one step and with three."""
    trial, seconds = trained(CATCH, seed, folder, **overrides)
    found = {"train_s": seconds}
    for steps in (1, 3):
        inside = stepping(trial.world, steps)
        figures = catch_figures(replace(trial, world=inside))
        agent = learn(WorldLanes(inside, AGENTS[CATCH].lanes), AGENTS[CATCH], seed)
        figures |= {"world_return": agent.world_return, "imagined_steps": agent.steps, "agent_s": agent.seconds}
        policy = policy_of(agent.agent, trial.dataset.observation_space)
        played = collect(
            CATCH, steps=SCORED_EPISODES * catch.STEPS, seed=1_000_000 + seed, policy=policy, policy_name="score"
        )
        figures["real_return"] = float(np.mean([episode.reward.sum() for episode in played]))
        found |= {f"{name}@{steps}": value for name, value in figures.items()}
    return found


def action_row(seed: int, folder: Path, **overrides: object) -> dict[str, float]:
    """A4b: the error one step ahead under shuffled actions over that under true ones; and the loss's own ratio."""
    found: dict[str, float] = {}
    for name, env_id in (("continuous", POINT_MASS), ("discrete", CATCH)):
        trial, seconds = trained(env_id, seed, folder, **overrides)
        figures = {**action_figures(trial), "train_s": seconds}
        found |= {f"{key}@{name}": value for key, value in figures.items()}
    return found


def knowing_row(seed: int, folder: Path, **overrides: object) -> dict[str, float]:
    """A7c: does the uncertainty rank true one-step errors, and does it know frames that the data never had?

    Off coverage are held-out frames with a second ball, or with the point's picture turned upside down and dimmed.
    """
    found: dict[str, float] = {}
    for name, env_id in (("catch", CATCH), ("pointmass", POINT_MASS)):
        trial, _ = trained(env_id, seed, folder, **overrides)
        world, episodes = trial.world, trial.fresh(700)
        windows = cut_windows(episodes, 1, 512, world.context_frames)
        guess, ahead = forecast(world, windows, copies=1)
        missed = np.sqrt((((guess - windows.truth) / spread(trial.training))[:, 1] ** 2).mean(-1))
        known, strange = ahead.uncertainty[:, 0], uncertainty_of_strange_frames(world, windows)
        found |= {f"spearman@{name}": spearman(known, missed), f"off_coverage_auroc@{name}": auroc(strange, known)}
        found |= {f"said@{name}": float(known.mean()), f"missed@{name}": float(missed.mean())}
    return found


def uncertainty_of_strange_frames(world: World, windows: object) -> np.ndarray:
    """What the world says of steps from frames of which one half was overwritten by the half of another."""
    history = windows.history.observation["observation"]  # type: ignore[attr-defined]
    mixed = history.copy()
    mixed[:, :, :, mixed.shape[3] // 2 :] = np.roll(history, 1, axis=0)[:, :, :, mixed.shape[3] // 2 :]
    strange = np.maximum(mixed, np.roll(history, 2, axis=0))
    changed = replace(windows, history=replace(windows.history, observation={"observation": strange}))  # type: ignore
    return forecast(world, changed, copies=1)[1].uncertainty[:, 0]


def spearman(left: np.ndarray, right: np.ndarray) -> float:
    """Rank correlation; equal values share their rank."""
    from scipy.stats import spearmanr  # noqa: PLC0415  the rest needs no scipy

    return float(spearmanr(left, right).statistic)


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """How often a positive is larger than a negative; ties count half."""
    larger = (positive[:, None] > negative[None]).mean() + 0.5 * (positive[:, None] == negative[None]).mean()
    return float(larger)


def starts_row(seed: int, folder: Path, **overrides: object) -> dict[str, float]:
    """A7e: how well nearest neighbours tell starts from real resets, drawn from the data or out of noise."""
    found: dict[str, float] = {}
    real = np.stack([e.observation["observation"][0] for e in collect(CATCH, steps=7 * 256, seed=777_000 + seed)])
    for kind in ("dataset", "generated"):
        trial, _ = trained(CATCH, seed, folder / kind, starts=kind, **overrides)
        made = imagine(trial.world, {"action": np.zeros((256, 0), np.int64)}, seeds=np.arange(256) + 10**6 * seed)
        frames = made.observation["observation"][:, 0]
        cells = catch.read(frames)
        places = zip(cells["ball_column"].tolist(), cells["paddle"].tolist(), strict=True)
        found |= {
            f"starts_auc@{kind}": two_sample_auc(real, frames),
            f"legal@{kind}": float((cells["clean"] & (cells["ball_row"] == 0)).mean()),
            f"kinds@{kind}": len(set(places)),
        }
    return found


def two_sample_auc(real: np.ndarray, made: np.ndarray) -> float:
    """AUC of a vote of 15 neighbours, each sample judged by all others."""
    rows = np.concatenate([real, made]).reshape(len(real) + len(made), -1).astype(np.float64) / 255
    label = np.r_[np.zeros(len(real)), np.ones(len(made))]
    square = (rows**2).sum(1)
    distance = square[:, None] + square[None] - 2 * rows @ rows.T
    np.fill_diagonal(distance, np.inf)
    distance += np.random.default_rng(0).uniform(0, 1e-9, distance.shape)  # equal frames are neighbours by lot
    vote = label[np.argsort(distance, axis=1)[:, :15]].mean(1)
    return max(auroc(vote[label == 1], vote[label == 0]), 1 - auroc(vote[label == 1], vote[label == 0]))


def speed_row(seed: int, folder: Path, lanes: int = 16) -> dict[str, float]:
    """A16: steps a second of step and emit with their draws; the median of several stretches."""
    environment = make_environment(CATCH)
    spec = WorldSpec(
        name="speed",
        version="",
        family="diffusion",
        observation_space=environment.observation_space,
        action_space=environment.action_space,
    )
    found: dict[str, float] = {}
    for steps in (1, 3):
        world = registry.create("diffusion", spec, {"steps": steps}).eval().requires_grad_(False)
        seeds, action = torch.arange(lanes), {"action": torch.ones(lanes, dtype=torch.int64)}
        rates = []
        with torch.inference_mode():
            state = world.init(lane_draws(world.draws["init"], seeds, torch.zeros_like(seeds), "init"))
            for stretch in range(12):
                began = time.perf_counter()
                for time_step in range(10):
                    moment = torch.full_like(seeds, 10 * stretch + time_step)
                    state, _ = world.step(state, action, lane_draws(world.draws["step"], seeds, moment, "step"))
                    world.emit(state)
                rates.append(10 * lanes / (time.perf_counter() - began))
        found |= {f"steps_per_s@{steps}": float(np.median(rates[2:])), f"best_steps_per_s@{steps}": max(rates)}
    return found


ROWS = {"A4": catch_row, "A4b": action_row, "A7c": knowing_row, "A7e": starts_row, "A16": speed_row}


def seed_row(row: str, seed: int, folder: Path, overrides: dict[str, object]) -> dict[str, float]:
    """One seed, on one thread; its figures are printed when they are there."""
    torch.set_num_threads(1)
    found = ROWS[row](seed, folder, **overrides)
    rounded = {name: round(value, 4) for name, value in found.items()}
    print(f"{row} seed {seed}: {json.dumps(rounded)}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--processes", type=int, default=1, help="seeds at a time")
    parser.add_argument("--out", type=Path, help="folder that keeps the worlds; none: they are thrown away")
    parser.add_argument("--json", type=Path, help="file that keeps the figures")
    parser.add_argument("-o", "--option", action="append", default=[], help="NAME=VALUE of the family")
    chosen = parser.parse_args()
    overrides = {name: json.loads(value) for name, _, value in (option.partition("=") for option in chosen.option)}
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(chosen.processes) as pool:
        row = partial(seed_row, chosen.row, folder=chosen.out or Path(folder), overrides=overrides)
        found = list(pool.map(row, seeds))
    for name in found[0]:
        values = [figures[name] for figures in found]
        bar = BARS.get(name.partition("@")[0], "")
        print(f"{chosen.row} {name:28} median {np.median(values):10.4f}  min {min(values):10.4f}  "
              f"max {max(values):10.4f}  {bar}")  # fmt: skip
    if chosen.json:
        chosen.json.write_text(json.dumps({"row": chosen.row, "seeds": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
