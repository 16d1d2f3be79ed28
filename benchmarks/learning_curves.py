"""Whether agents learn alike by rollouts on the server and by RLlib's own EnvRunner: curves over seeds, side by side.

PPO in a CartPole learned from 1,500 random steps with the demo's settings (or another shape of its batches), DQN in the
same world, SAC in a Pendulum learned from 3,000 random steps. Every training is a line of JSON: return and length of
each episode in the order of their ends, the worth of the greedy policy in the real environment, seconds of sampling.
`--summary` reads such lines, and prints and draws means over seeds with their 95 % intervals.

    python benchmarks/learning_curves.py --kinds ppo --shapes 64x32 --seeds 0-7 --out runs/curves/ppo.jsonl
    python benchmarks/learning_curves.py --summary runs/curves/ppo.jsonl [--picture docs/pictures/ppo-rollouts.png]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "agents")]

import gymnasium as gym  # noqa: E402
import numpy as np  # noqa: E402
import off_policy_rllib as off_policy  # noqa: E402
import torch  # noqa: E402
from local_process import LocalProcess  # noqa: E402

from simservice.client.rllib import PPOSettings, local_ray, served_config  # noqa: E402
from simservice.data.collect import collect  # noqa: E402
from simservice.data.minari import save_dataset  # noqa: E402
from simservice.training.trainer import TrainConfig, train  # noqa: E402
from simservice.types import Array  # noqa: E402

OWN, ROLLOUTS = "RLlib's own", "rollouts"
WORLDS = {"cartpole": ("CartPole-v1", 1_500), "pendulum": ("Pendulum-v1", 3_000)}
WORLD_OF = {"ppo": "cartpole", "dqn": "cartpole", "sac": "pendulum"}
STEPS = {"ppo": PPOSettings.total_steps, "dqn": 30_000, "sac": 6_400}
SCORED_EPISODES = 20
SCORED_FROM = 90_000  # the first seed of the real episodes
BINS = 14  # of the curve
LONGEST = 500  # steps of an episode of CartPole
SAMPLES = 2_000  # of seeds, for an interval


# ---- worlds ----------------------------------------------------------------------------------------------------------


def make_world(name: str, folder: Path) -> Path:
    """The learned world in a folder, unless it is there."""
    env_id, steps = WORLDS[name]
    if not (folder / name).exists():
        torch.set_num_threads(1)
        episodes = collect(env_id, steps=steps, seed=0, policy="random")
        dataset = save_dataset(episodes, f"curves/{name}-v0", env_id=env_id, root=folder / "datasets")
        train(dataset, "ensemble", folder / name, config=TrainConfig(seed=0))
    return folder / name


# ---- one training ----------------------------------------------------------------------------------------------------


class Ends:
    """Episodes of a training in the order of their ends, put together from the chunks that runners give out."""

    def __init__(self) -> None:
        self.steps = 0
        self.found: list[tuple[int, float, int]] = []  # steps by then, return, length
        self._returns: dict[str, float] = {}

    def note(self, chunks: Sequence[Any]) -> None:
        """What one call of sample() gave."""
        for chunk in chunks:
            total = self._returns.pop(chunk.id_, 0.0) + float(chunk.get_return())
            if chunk.is_done:
                self.found.append((self.steps, total, int(chunk.t)))
            else:
                self._returns[chunk.id_] = total
        self.steps += sum(map(len, chunks))


def settings_of(kind: str, shape: str, runner: str, seed: int, address: str, steps: int) -> Any:
    """RLlib's configuration of one training."""
    lanes, rows = map(int, shape.split("x"))
    if kind == "ppo":
        settings = replace(PPOSettings(total_steps=steps), num_envs=lanes, rollout_steps=rows)
        return served_config(address, WORLD_OF[kind], settings, seed=seed, rollouts=runner == ROLLOUTS)
    words = argparse.Namespace(
        address=address,
        world=WORLD_OF[kind],
        steps=steps,
        num_envs=lanes,
        rollout_steps=rows,
        by_steps=runner == OWN,
        seed=seed,
    )
    return off_policy.settings(kind, words)


def learn(kind: str, shape: str, runner: str, seed: int, address: str, steps: int) -> dict[str, Any]:
    """One training, told."""
    ends, seconds = Ends(), 0.0
    config = settings_of(kind, shape, runner, seed, address, steps)
    algorithm = config.build_algo()
    sampler = algorithm.env_runner
    sample = sampler.sample

    def timed(*arguments: Any, **words: Any) -> Any:
        nonlocal seconds
        began = time.perf_counter()
        episodes = sample(*arguments, **words)
        seconds += time.perf_counter() - began
        ends.note(episodes)
        return episodes

    sampler.sample = timed
    began = time.perf_counter()
    while ends.steps < steps:
        algorithm.train()
    elapsed = time.perf_counter() - began
    found = {
        "kind": kind,
        "shape": shape,
        "runner": runner,
        "seed": seed,
        "steps": ends.steps,
        "sampling_s": round(seconds, 2),
        "elapsed_s": round(elapsed, 1),
        "real_return": round(worth(algorithm, WORLDS[WORLD_OF[kind]][0]), 1),
        "episodes": [(at, round(total, 1), length) for at, total, length in ends.found],
    }
    algorithm.stop()
    return found


def worth(algorithm: Any, env_id: str) -> float:
    """Mean return of the greedy policy in real episodes, played side by side."""
    module = algorithm.env_runner.module
    envs = [gym.make(env_id) for _ in range(SCORED_EPISODES)]
    seen = np.stack([env.reset(seed=SCORED_FROM + number)[0] for number, env in enumerate(envs)])
    totals, playing = np.zeros(SCORED_EPISODES), np.ones(SCORED_EPISODES, np.bool_)
    while playing.any():
        actions = greedy(module, seen, envs[0].action_space)
        for number in np.flatnonzero(playing):
            seen[number], reward, terminated, truncated, _ = envs[number].step(actions[number])
            totals[number] += float(reward)
            playing[number] = not (terminated or truncated)
    return float(totals.mean())


def greedy(module: Any, observation: Array, space: gym.Space[Any]) -> Array:
    """The likeliest actions, as the environment takes them."""
    with torch.no_grad():
        said = module.forward_inference({"obs": torch.as_tensor(observation, dtype=torch.float32)})
    if "actions" in said:  # DQN says the action of the highest value itself
        return np.asarray(said["actions"])
    chosen = module.get_inference_action_dist_cls().from_logits(said["action_dist_inputs"]).to_deterministic().sample()
    if isinstance(space, gym.spaces.Discrete):
        return chosen.numpy()
    return space.low + (chosen.numpy() + 1.0) * (space.high - space.low) / 2.0  # modules act in -1 to 1


# ---- what it comes to ------------------------------------------------------------------------------------------------


def curve(row: dict[str, Any], steps: int) -> Array:
    """(BINS,) mean return in each part of the training.

    Where a step is worth 1 that is steps over ends, which does not wait for long episodes to end; elsewhere the mean of
    those that ended there (NaN: none).
    """
    at, total = (np.array([episode[place] for episode in row["episodes"]], float) for place in (0, 1))
    part = np.minimum((at * BINS // steps).astype(int), BINS - 1)
    counts = np.bincount(part, minlength=BINS)
    if WORLD_OF[row["kind"]] == "cartpole":
        return np.minimum(LONGEST, steps / BINS / np.maximum(counts, 1))
    sums = np.bincount(part, weights=total, minlength=BINS)
    return np.where(counts, sums / np.maximum(counts, 1), np.nan)


def interval(curves: Array, generator: np.random.Generator) -> tuple[Array, Array, Array]:
    """Mean over seeds, (seeds, BINS) in, and its 95 % interval by resampling seeds."""
    chosen = generator.integers(0, len(curves), (SAMPLES, len(curves)))
    means = np.nanmean(curves[chosen], axis=1)
    return np.nanmean(curves, axis=0), np.nanquantile(means, 0.025, axis=0), np.nanquantile(means, 0.975, axis=0)


def difference(ours: Array, theirs: Array, generator: np.random.Generator) -> tuple[float, float, float]:
    """Of the means over all of the training, rollouts less RLlib's own, with its 95 % interval; one number a seed."""
    a, b = np.nanmean(ours, axis=1), np.nanmean(theirs, axis=1)
    drawn = [
        a[generator.integers(0, len(a), len(a))].mean() - b[generator.integers(0, len(b), len(b))].mean()
        for _ in range(SAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(a.mean() - b.mean()), float(low), float(high)


def grouped(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, list[dict[str, Any]]]]:
    """By kind and shape, then by runner."""
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["shape"]), {OWN: [], ROLLOUTS: []})[row["runner"]].append(row)
    return groups


def summarise(rows: Sequence[dict[str, Any]], picture: Path | None) -> None:
    """Prints a block a kind and shape, and draws them."""
    drawn: list[tuple[str, dict[str, tuple[Array, Array, Array]]]] = []
    for (kind, shape), by_runner in grouped(rows).items():
        generator = np.random.default_rng(0)
        steps = max(row["steps"] for row in by_runner[OWN] + by_runner[ROLLOUTS])
        curves = {name: np.stack([curve(row, steps) for row in mine]) for name, mine in by_runner.items() if mine}
        lines = {name: interval(found, generator) for name, found in curves.items()}
        print(f"{kind} {shape}, {steps:,} steps")
        for name, (mean, low, high) in lines.items():
            mine = by_runner[name]
            told = " ".join(
                f"{m:.0f}({a:.0f},{b:.0f})" for m, a, b in zip(mean[1::2], low[1::2], high[1::2], strict=True)
            )
            real = sorted(row["real_return"] for row in mine)
            print(f"  {name}, {len(mine)} seeds: {told}")
            print(f"    real {real} mean {np.mean(real):.1f}; sampling {np.median([r['sampling_s'] for r in mine])} s")
        if len(curves) == 2:
            middle, low, high = difference(curves[ROLLOUTS], curves[OWN], generator)
            real = [np.array([[row["real_return"]] for row in by_runner[name]]) for name in (ROLLOUTS, OWN)]
            found = difference(real[0], real[1], generator)
            print(
                f"  difference while learning {middle:+.1f} ({low:+.1f} to {high:+.1f}); "
                f"of real returns {found[0]:+.1f} ({found[1]:+.1f} to {found[2]:+.1f})"
            )
        drawn.append((f"{kind.upper()}, {shape.replace('x', ' lanes x ')} steps", lines))
    if picture is not None:
        draw(drawn, rows, picture)


def draw(panels: Sequence[tuple[str, Any]], rows: Sequence[dict[str, Any]], picture: Path) -> None:
    """One panel a kind and shape."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 - only where a picture is asked for

    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), squeeze=False)
    groups = list(grouped(rows).values())
    for axis, (title, lines), group in zip(axes[0], panels, groups, strict=True):
        steps = max(row["steps"] for mine in group.values() for row in mine)
        middles = (np.arange(BINS) + 0.5) * steps / BINS
        for (name, (mean, low, high)), colour in zip(lines.items(), ("#777777", "#d9730d"), strict=False):
            axis.plot(middles, mean, color=colour, label=f"{name}, {len(group[name])} seeds")
            axis.fill_between(middles, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("imagined steps")
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("return, mean of seeds")
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=90)


# ---- all -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(names: set[str], worlds: Path | None) -> Iterator[str]:
    """The address of a process that serves them."""
    with contextlib.ExitStack() as stack:
        folder = worlds or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        yield stack.enter_context(LocalProcess(*[make_world(name, folder) for name in sorted(names)])).address


def main() -> None:
    """Trains, or tells what trainings came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="ppo", help="ppo, sac, dqn, with commas between them")
    parser.add_argument("--shapes", default="64x32", help="lanes x steps of a round; off-policy: 16x8")
    parser.add_argument("--runners", default=f"{OWN},{ROLLOUTS}")
    parser.add_argument("--seeds", default="0-5", help="from-to")
    parser.add_argument("--steps", type=int, help="imagined steps of a training")
    parser.add_argument("--worlds", type=Path, help="where the worlds are or are to be made; else a temporary folder")
    parser.add_argument("--out", type=Path, default=Path("runs/curves.jsonl"))
    parser.add_argument("--summary", type=Path, nargs="+", help="files of an earlier --out; nothing is trained")
    parser.add_argument("--picture", type=Path)
    words = parser.parse_args()
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    if words.summary:
        rows = [json.loads(line) for path in words.summary for line in path.read_text().splitlines()]
        summarise(rows, words.picture)
        return
    first, last = map(int, words.seeds.split("-"))
    kinds = words.kinds.split(",")
    words.out.parent.mkdir(parents=True, exist_ok=True)
    with served({WORLD_OF[kind] for kind in kinds}, words.worlds) as address, local_ray():
        for seed in range(first, last + 1):
            for kind in kinds:
                for shape in words.shapes.split(","):
                    for runner in words.runners.split(","):
                        row = learn(kind, shape, runner, seed, address, words.steps or STEPS[kind])
                        with words.out.open("a") as file:
                            file.write(json.dumps(row) + "\n")
                        print({name: value for name, value in row.items() if name != "episodes"}, flush=True)


if __name__ == "__main__":
    main()
