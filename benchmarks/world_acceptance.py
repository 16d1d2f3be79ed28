"""Shows what the ensemble world is worth: open loop, agents trained inside it and scored in reality, luck, speed.

    python benchmarks/world_acceptance.py [a1 a1b a1-controls a1b-controls a7d a7e a14 a16 dyna ...]

Every check prints its figures and whether they meet the bar; the exit status says whether all did. Real steps that a
world or an agent may learn from are counted; those that only judge (100 episodes an agent, fresh test data) are not.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from world_controls import a1_controls, a1b_controls, a7e
from world_lanes import DreamLanes, Report, as_dataset, dream_and_score, play_agent, record

from simservice.data.episodes import Dataset
from simservice.training.evaluate import Evaluation, evaluate
from simservice.training.trainer import Summary, TrainConfig, train
from simservice.worlds.checkpoint import load
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import Tensors, World

TEST_STEPS = 6_000


def _train(dataset: Dataset, out: Path, seed: int) -> tuple[Summary, World]:
    summary = train(dataset, "ensemble", out, config=TrainConfig(seed=seed))
    return summary, load(out).world


def _print_errors(found: Evaluation) -> None:
    for k, error in found.errors.items():
        columns = f"world {error.world:.4f}  persistence {error.persistence:.3f}  linear {error.linear:.4f}"
        print(f"    k={k:<3} {columns}  ({error.windows} windows)")


# ---- the checks ------------------------------------------------------------------------------------------------------


def a1(report: Report, folder: Path) -> None:
    """CartPole: open-loop margins, and agents at 475 in reality from 2,500 mixed real steps."""
    _trained_inside(report, folder, "CartPole-v1", "mixed", (475, 400), 0.2)


def a1b(report: Report, folder: Path) -> None:
    """Pendulum: learned reward, and agents at -200 in reality from 3,000 random real steps."""
    _trained_inside(report, folder, "Pendulum-v1", "random", (-200, -np.inf), 0.3)


def _trained_inside(
    report: Report, folder: Path, env_id: str, behaviour: str, bars: tuple[float, float], gap_bar: float
) -> None:
    real, gaps, seconds = list[float](), list[float](), list[float]()
    for seed in range(3):
        data = record(env_id, 2_500 if behaviour == "mixed" else 3_000, seed, behaviour)
        clock, cpu = time.perf_counter(), time.process_time()
        summary, world = _train(as_dataset(env_id, data), folder / f"{env_id}-{seed}", seed)
        _, inside, returns = dream_and_score(world, env_id, seed)
        seconds.append(time.process_time() - cpu)
        real.append(float(np.mean(returns)))
        gaps.append(abs(inside - real[-1]) / abs(real[-1]))
        print(
            f"  seed {seed}: {summary.real_steps:,} real steps, return in the world {inside:.0f}, in reality "
            f"{real[-1]:.0f} (worst of 100: {min(returns):.0f}), {seconds[-1]:.0f} CPU s, "
            f"{time.perf_counter() - clock:.0f} s by the clock"
        )
        test = evaluate(world, record(env_id, TEST_STEPS, 100 + seed, behaviour), data)
        _print_errors(test)
        if behaviour == "mixed":
            at = test.errors
            report.check(
                "k=10 over persistence",
                at[10].world / at[10].persistence,
                "<= 0.05",
                at[10].world <= 0.05 * at[10].persistence,
            )
            report.check(
                "k=50 over persistence",
                at[50].world / at[50].persistence,
                "<= 0.5",
                at[50].world <= 0.5 * at[50].persistence,
            )
            for k in (10, 25, 50):
                report.check(f"k={k} over linear", at[k].world / at[k].linear, "< 1", at[k].world < at[k].linear)
            ends = test.termination
            print(f"    termination: base rate {ends.base_rate:.4f}, average precision {ends.average_precision:.3f}")
            report.check("termination precision", ends.precision, ">= 0.75", ends.precision >= 0.75)
            report.check("termination recall", ends.recall, ">= 0.75", ends.recall >= 0.75)
        else:
            report.check("reward R²", test.reward_r2, ">= 0.98", test.reward_r2 >= 0.98)
    report.check("median real return", float(np.median(real)), f">= {bars[0]}", float(np.median(real)) >= bars[0])
    if np.isfinite(bars[1]):
        report.check("least real return", min(real), f">= {bars[1]}", min(real) >= bars[1])
    report.check("gap between world and reality", max(gaps), f"<= {gap_bar}", max(gaps) <= gap_bar)
    report.check("fit and PPO, CPU seconds", max(seconds), "<= 180", max(seconds) <= 180)


def dyna(report: Report, folder: Path) -> None:
    """CartPole from random play: 1,000 real steps, then 500 of the agent's own a round, to 3,000 in all."""
    for seed in range(3):
        data, best = record("CartPole-v1", 1_000, 50 + seed, "random"), 0.0
        for round_ in range(5):
            steps = sum(len(episode) for episode in data)
            _, world = _train(as_dataset("CartPole-v1", data), folder / f"dyna-{seed}-{round_}", seed)
            agent, inside, returns = dream_and_score(world, "CartPole-v1", 10 * seed + round_)
            best = max(best, float(np.mean(returns)))
            print(
                f"  seed {seed}: {steps:,} real steps, in the world {inside:.0f}, in reality {np.mean(returns):.0f}",
                flush=True,
            )
            if np.mean(returns) >= 475:
                break
            data = [*data, *play_agent("CartPole-v1", agent, 500, 1_000 * (seed + 1) + round_)]
        report.check(f"seed {seed}, real return by 3,000 real steps", best, ">= 475", best >= 475)


def a7d(report: Report, folder: Path) -> None:
    """Time limits in the data change no probability of termination; ends and rewards are told well."""
    data = record("CartPole-v1", 2_500, 7, "mixed")
    relabelled = [replace(episode, truncated=not episode.truncated) for episode in data]
    first, one = _train(as_dataset("CartPole-v1", data), folder / "as-recorded", 7)
    second, other = _train(as_dataset("CartPole-v1", relabelled), folder / "relabelled", 7)
    differing = sum(
        not torch.equal(a, b) for a, b in zip(one.weights().values(), other.weights().values(), strict=True)
    )
    print(f"  worlds {first.version} and {second.version}")
    report.check("tensors that relabelled time limits changed", differing, "0", differing == 0)
    found = evaluate(one, record("CartPole-v1", TEST_STEPS, 107, "mixed"), data)
    ends, rate = found.termination, found.termination.average_precision / found.termination.base_rate
    report.check("average precision over base rate", rate, ">= 10", rate >= 10)
    report.check("calibration error", ends.calibration_error, "<= 0.05", ends.calibration_error <= 0.05)


def a14(report: Report, folder: Path) -> None:
    """A lane's numbers do not depend on its place, its companions, the process or a fork."""
    data = record("CartPole-v1", 600, 3, "mixed")
    train(as_dataset("CartPole-v1", data), "ensemble", folder / "world", config=TrainConfig(overrides={"updates": 200}))
    world, seeds = load(folder / "world").world, torch.arange(16) * 7 + 1
    state = world.init(lane_draws(world.draws["init"], seeds, torch.zeros_like(seeds), "init"))
    save_file({**state, "seeds": seeds}, folder / "state.safetensors")
    together = unroll(world, state, seeds)
    order = torch.randperm(16)
    moved = unroll(world, {name: value[order] for name, value in state.items()}, seeds[order])
    same = all(torch.equal(together[name][order], moved[name]) for name in together)
    report.check("lanes at another position equal, bit for bit", same, "all", same)
    for lane in (0, 9, 15):
        copies = unroll(world, {k: v[[lane] * 16] for k, v in state.items()}, seeds[[lane] * 16])
        same = all(torch.equal(together[name][lane], copies[name][0]) for name in together)
        report.check(f"lane {lane} among 15 copies of itself equal to lane {lane} among others", same, "all", same)
    forked = unroll(world, state, seeds + 1)
    differ = not torch.equal(forked["features"], together["features"])
    report.check("a fork with another seed differs", differ, "yes", differ)
    command = [sys.executable, __file__, "--unroll", str(folder)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    report.check(
        "another process from the saved state equal", printed == digest(together), "yes", printed == digest(together)
    )


def unroll(world: World, state: Tensors, seeds: Tensor, steps: int = 50) -> Tensors:
    """All numbers of 50 steps under fixed actions: (lanes, steps, ...)."""
    seen: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for time_ in range(steps):
            draws = lane_draws(world.draws["step"], seeds, torch.full_like(seeds, time_), "step")
            action = {"action": ((seeds + time_) % 3 == 0).long()}
            state, out = world.step(state, action, draws)
            for name, value in {**state, **out._asdict()}.items():
                if name != "aux":
                    seen.setdefault(name, []).append(value)
    return {name: torch.stack(values, 1) for name, values in seen.items()}


def digest(numbers: Tensors) -> str:
    """A hash of all bits."""
    return hashlib.sha256(b"".join(numbers[name].numpy().tobytes() for name in sorted(numbers))).hexdigest()


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
    dream = DreamLanes(world, lanes, 0)
    dream.reset()
    action, spent = {"action": torch.ones(lanes, dtype=torch.int64)}, list[float]()
    with torch.inference_mode():
        for _ in range(steps):
            began = time.perf_counter()
            state, _ = world.step(dream.state, action, dream.draws("step"))
            world.emit(state)
            spent.append(time.perf_counter() - began)
    return spent


CHECKS = {
    "a1": a1,
    "a1b": a1b,
    "a1-controls": a1_controls,
    "a1b-controls": a1b_controls,
    "a7d": a7d,
    "a7e": a7e,
    "a14": a14,
    "a16": a16,
    "dyna": dyna,
}


def main() -> None:
    """Runs the named checks, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; all by default")
    parser.add_argument("--unroll", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.unroll:
        state = load_file(arguments.unroll / "state.safetensors")
        seeds = state.pop("seeds")
        print(digest(unroll(load(arguments.unroll / "world").world, state, seeds)))
        return
    report = Report()
    for name in arguments.checks or CHECKS:
        if name not in CHECKS:
            parser.error(f"no check {name!r}; there are: {', '.join(CHECKS)}")
        print(f"{name}: {CHECKS[name].__doc__}", flush=True)
        with tempfile.TemporaryDirectory() as place:
            CHECKS[name](report, Path(place))
    print("all met" if report.passed else "NOT all met")
    sys.exit(not report.passed)


if __name__ == "__main__":
    main()
