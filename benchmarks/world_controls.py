"""What a trained world is held against: agents trained inside worlds that know nothing, or the truth; real resets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from scipy import stats
from torch import Tensor
from world_lanes import JUDGED_FROM, Report, as_dataset, dream_and_score, record

from simservice.training.trainer import TrainConfig, train
from simservice.types import Array, Episode
from simservice.worlds.checkpoint import load
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import World

RESETS = 130  # that the starts are learned from
JUDGED = 1_500  # starts, and as many fresh resets, half of which the classifier is fitted to
NEIGHBOURS = 15  # of the classifier
UNTRAINED = TrainConfig(overrides={"updates": 1, "learning_rate": 1e-9})


def a1_controls(report: Report, folder: Path) -> None:
    """CartPole: agents trained inside an untrained world, shuffled actions, persistence, a linear world, the truth."""
    _controls(report, folder, "CartPole-v1", record("CartPole-v1", 2_500, 0, "mixed"), (475.0, 500.0))


def a1b_controls(report: Report, folder: Path) -> None:
    """Pendulum: the same."""
    _controls(report, folder, "Pendulum-v1", record("Pendulum-v1", 3_000, 0, "random"), (-200.0, 0.0))


def _controls(report: Report, folder: Path, env_id: str, data: list[Episode], marks: tuple[float, float]) -> None:
    """marks: what the truth is asked for, and the best return there is. Three agents a world; their median counts."""
    chance = _random_return(env_id)
    ceiling = chance + 0.15 * (marks[1] - chance)
    print(f"  random play {chance:.0f}", flush=True)
    for name, family, episodes in (
        ("untrained", "ensemble", data),
        ("shuffled actions", "ensemble", shuffled(data)),
        ("persistence", "persistence", data),
        ("linear", "linear", data),
        ("the truth", "oracle", data),
    ):
        out = folder / name.replace(" ", "-")
        train(as_dataset(env_id, episodes), family, out, config=UNTRAINED if name == "untrained" else TrainConfig())
        world = load(out).world
        if name == "untrained":
            forget(world)
        agents = [dream_and_score(world, env_id, seed) for seed in range(3)]
        scores = [float(np.mean(returns)) for _, _, returns in agents]
        dreamt = ", ".join(f"{inside:.0f}" for _, inside, _ in agents)
        print(f"  {name}: in the world {dreamt}, in reality {', '.join(f'{s:.0f}' for s in scores)}", flush=True)
        real = float(np.median(scores))
        if family == "oracle":
            report.check(f"{name}: median real return", real, f">= {marks[0]:.0f}", real >= marks[0])
        elif family != "linear":  # which is told, not judged: CartPole near upright is close to linear
            report.check(f"{name}: median real return", real, f"<= {ceiling:.0f}", real <= ceiling)


def forget(world: World) -> None:
    """Takes the closed-form fit from an ensemble, so that scales, bounds and starts are all that it has of the data."""
    for tensor in world.get_buffer("trend"), world.get_buffer("trend_bias"):
        tensor.zero_()


def shuffled(episodes: Sequence[Episode]) -> list[Episode]:
    """The episodes with all actions dealt out anew: what follows has nothing to do with them."""
    chance = np.random.default_rng(0)
    acted = np.concatenate([episode.action["action"] for episode in episodes])
    dealt = acted[chance.permutation(len(acted))]
    ends = np.cumsum([len(episode) for episode in episodes])[:-1]
    return [
        replace(episode, action={"action": rows}) for episode, rows in zip(episodes, np.split(dealt, ends), strict=True)
    ]


def _random_return(env_id: str) -> float:
    return float(np.mean([e.undiscounted_return for e in record(env_id, 6_000, 77, "random")[:-1]]))


def a7e(report: Report, folder: Path) -> None:
    """Starts of a world that saw 130 resets against fresh resets: a classifier's area under the curve; no replays."""
    for env_id in ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0"):
        seen, real = _resets(env_id, RESETS, 0), _resets(env_id, JUDGED, JUDGED_FROM)
        data = [replace(_one_step(env_id), observation={"observation": np.stack([row, row])}) for row in seen]
        train(as_dataset(env_id, data), "persistence", folder / env_id, config=TrainConfig())
        new = _starts(load(folder / env_id).world, JUDGED)
        area = classified(new, real)
        bootstrap = classified(seen[np.random.default_rng(0).integers(RESETS, size=JUDGED)], real)
        print(f"  {env_id}: repeating the recorded resets would give {bootstrap:.2f}")
        report.check(f"{env_id}: area under the curve, starts against resets", area, "<= 0.6", area <= 0.6)
        fresh = float((_distances(new, seen).min(1).values > 0).float().mean())
        report.check(f"{env_id}: share of starts that were never recorded", fresh, ">= 0.9", fresh >= 0.9)


def _resets(env_id: str, count: int, first_seed: int) -> Array:
    env = gym.make(env_id)
    rows = np.stack([env.reset(seed=first_seed + i)[0] for i in range(count)]).astype(np.float32)
    env.close()
    return rows


def _one_step(env_id: str) -> Episode:
    return record(env_id, 1, 0, "random")[0]


def _starts(world: World, count: int) -> Array:
    seeds = torch.arange(count)
    state = world.init(lane_draws(world.draws["init"], seeds, torch.zeros_like(seeds), "init"))
    rows: Array = world.emit(state)["observation"].numpy()
    return rows


def _distances(rows: Array, others: Array) -> Tensor:
    """Without the shortcut by matrix products, whose rounding makes neighbours equal."""
    pair = torch.from_numpy(rows), torch.from_numpy(others)
    return torch.cdist(*pair, compute_mode="donot_use_mm_for_euclid_dist")


def classified(new: Array, real: Array) -> float:
    """The area under the curve of a nearest-neighbour classifier on the half that it was not fitted to."""
    spread = real.std(axis=0)
    rows = np.concatenate([new, real]) / np.where(spread > 1e-9, spread, 1.0)
    labels = np.repeat([0, 1], [len(new), len(real)])
    order = np.random.default_rng(2).permutation(len(rows))
    rows, labels, half = rows[order], labels[order], len(rows) // 2
    near = _distances(rows[half:], rows[:half]).topk(NEIGHBOURS, largest=False).indices.numpy()
    score, truth = labels[:half][near].mean(axis=1), labels[half:]
    wins = stats.mannwhitneyu(score[truth == 1], score[truth == 0]).statistic
    return float(wins / ((truth == 1).sum() * (truth == 0).sum()))
