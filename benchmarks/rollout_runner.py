"""RLlib's EnvRunner that plays rollouts on the server beside RLlib's own, in the same run.

Episodes: imagined steps a second delivered as episodes, metrics included, 256 lanes x 64 steps, in the toy world and
in a CartPole world learned from 1,500 random steps. Sampling: what the demo's PPO waits for between two updates, in
alternating rounds. PPO: the demo's training in that world over some seeds; what each policy is worth in the real
CartPole.

    python benchmarks/rollout_runner.py [--only episodes,sampling,ppo] [--service ray|local] [--rounds 5] [--seeds 3]

Exits with 1 where a bar is missed: 5 times the steps a second, a third of the seconds of sampling.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
os.environ["SIMSERVICE_EXTRA_FAMILIES"] = "toy:Toy"
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym  # noqa: E402
import torch  # noqa: E402
from local_process import LocalProcess  # noqa: E402
from toy import Toy, ToyConfig, toy_spec  # noqa: E402

from simservice.client.policy import Policy  # noqa: E402
from simservice.client.rllib import PPOSettings, Progress, local_ray, served_config, train_ppo  # noqa: E402
from simservice.data.collect import collect  # noqa: E402
from simservice.data.minari import save_dataset  # noqa: E402
from simservice.serving.service import RayService  # noqa: E402
from simservice.training.trainer import TrainConfig, train  # noqa: E402
from simservice.types import Provenance  # noqa: E402
from simservice.worlds import checkpoint  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

KINDS = ("RLlib's own", "rollouts")
LANES, STEPS = 256, 64
FASTER, SAMPLING_SHARE = 5.0, 1 / 3
DEMO = PPOSettings(total_steps=57_344)  # the demo's first training: 64 lanes x 32 steps between two updates
TRAININGS = {
    "RLlib's own": (DEMO, False),
    "rollouts": (DEMO, True),
    "rollouts, 128 lanes": (replace(DEMO, num_envs=128, rollout_steps=16), True),  # a row costs what its calls cost
}
SCORED_EPISODES = 20
REAL_STEPS = 1_500


# ---- worlds ------------------------------------------------------------------------------------------------------


def make_worlds(place: Path) -> list[Path]:
    """The toy and an ensemble's CartPole, as folders."""
    toy, cartpole = place / "toy", place / "cartpole"
    checkpoint.save(Toy(toy_spec(), ToyConfig(growth=0.9)), toy, provenance=Provenance())
    episodes = collect("CartPole-v1", steps=REAL_STEPS, seed=0, policy="random")
    dataset = save_dataset(episodes, "bench/cartpole-v0", env_id="CartPole-v1", root=place / "datasets")
    torch.set_num_threads(1)
    train(dataset, "ensemble", cartpole, config=TrainConfig(seed=0))
    return [toy, cartpole]


@contextlib.contextmanager
def served(kind: str, folders: Sequence[Path]) -> Iterator[str]:
    """Their address; a process of its own in either case."""
    if kind == "local":
        with LocalProcess(*folders) as server:
            yield server.address
    else:
        with RayService(folders, device="cpu") as service:
            yield service.address


# ---- episodes ----------------------------------------------------------------------------------------------------


def time_episodes(address: str, world: str, rounds: int) -> dict[str, Any]:
    """Steps a second of both, in alternating rounds."""
    settings = PPOSettings(num_envs=LANES, rollout_steps=STEPS)
    runners = {}
    for kind in KINDS:
        config = served_config(address, world, settings, rollouts=kind == "rollouts")
        runners[kind] = (config.env_runner_cls or SingleAgentEnvRunner)(config=config)
    speeds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds + 1):
        for kind, runner in runners.items():
            began = time.perf_counter()
            episodes = runner.sample(num_timesteps=LANES * STEPS)
            runner.get_metrics()
            seconds = time.perf_counter() - began
            if number:  # the first is for warming up
                speeds[kind].append(sum(map(len, episodes)) / seconds)
    for runner in runners.values():
        runner.stop()
    ratios = [ours / theirs for theirs, ours in zip(*speeds.values(), strict=True)]
    return {
        "world": world,
        **{kind: round(statistics.median(values)) for kind, values in speeds.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in sorted(ratios)],
    }


# ---- between two updates --------------------------------------------------------------------------------------------


def time_updates(address: str, rounds: int) -> dict[str, Any]:
    """Seconds of the sampling between two of the demo's updates, weights put included, in alternating rounds."""
    runners = {}
    for kind, (settings, rollouts) in TRAININGS.items():
        config = served_config(address, "cartpole", settings, rollouts=rollouts)
        runners[kind] = (config.env_runner_cls or SingleAgentEnvRunner)(config=config)
        runners[kind].sample(num_timesteps=DEMO.batch_size)
    seconds: dict[str, list[float]] = {kind: [] for kind in TRAININGS}
    for _ in range(rounds):
        for kind, runner in runners.items():
            weights = runner.get_state()["rl_module"]
            runner.set_state({"rl_module": {name: value + 1e-4 for name, value in weights.items()}})
            began = time.perf_counter()
            runner.sample(num_timesteps=DEMO.batch_size)
            runner.get_metrics()
            seconds[kind].append(time.perf_counter() - began)
    for runner in runners.values():
        runner.stop()
    theirs = seconds["RLlib's own"]
    return {
        kind: {
            "median_ms": round(1e3 * statistics.median(mine), 1),
            "share": round(statistics.median(ours / other for ours, other in zip(mine, theirs, strict=True)), 3),
        }
        for kind, mine in seconds.items()
    }


# ---- PPO ---------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds spent in sample() of all runners of this process while it is open. RLlib's own timer is a moving mean."""

    def __enter__(self) -> Clock:
        self.seconds, self.first = 0.0, 0.0
        self._sample = SingleAgentEnvRunner.sample

        def timed(*arguments: Any, **words: Any) -> Any:
            began = time.perf_counter()
            episodes = self._sample(*arguments, **words)
            taken = time.perf_counter() - began
            self.first = self.first or taken
            self.seconds += taken
            return episodes

        SingleAgentEnvRunner.sample = timed
        return self

    def __exit__(self, *failure: object) -> None:
        SingleAgentEnvRunner.sample = self._sample


def train_all(address: str, seeds: int) -> list[dict[str, Any]]:
    """The demo's training by all, a line a seed and runner."""
    rows = []
    for seed in range(seeds):
        for kind, (settings, rollouts) in TRAININGS.items():
            curve: list[Progress] = []
            config = served_config(address, "cartpole", settings, seed=seed, rollouts=rollouts)
            with Clock() as clock:
                trained = train_ppo(config, settings, progress=curve.append)
            rows.append(
                {
                    "runner": kind,
                    "seed": seed,
                    "real_return": round(score(trained.policy), 1),
                    "sampling_s": round(clock.seconds, 2),
                    "first_s": round(clock.first, 2),  # of them: the first sample, in which the policy is looked into
                    "elapsed_s": round(trained.last.elapsed_s, 2),
                    "steps": trained.last.steps,
                    "curve": [round(made.return_mean, 1) for made in curve[3::6]],
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def score(policy: Policy) -> float:
    """Mean return of the greedy policy in the real CartPole."""
    act, returns = policy.greedy(), []
    env = gym.make("CartPole-v1")
    for seed in range(SCORED_EPISODES):
        observation, _ = env.reset(seed=90_000 + seed)
        total, over = 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(act(observation[None])[0])
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    env.close()
    return statistics.mean(returns)


def compare(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All medians, and what the rollouts' seconds are of RLlib's own, seed by seed (on a quiet machine)."""
    by_kind = {kind: [row for row in rows if row["runner"] == kind] for kind in TRAININGS}
    found: dict[str, Any] = {
        kind: {
            "sampling_s": statistics.median(row["sampling_s"] for row in mine),
            "elapsed_s": statistics.median(row["elapsed_s"] for row in mine),
            "real_returns": [row["real_return"] for row in mine],
        }
        for kind, mine in by_kind.items()
    }
    theirs = by_kind["RLlib's own"]
    for kind, mine in by_kind.items():
        shares = [ours["sampling_s"] / other["sampling_s"] for ours, other in zip(mine, theirs, strict=True)]
        found[kind]["share"] = round(statistics.median(shares), 3)
    return found


# ---- all ---------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="episodes,sampling,ppo")
    parser.add_argument("--service", choices=("ray", "local"), default="ray")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--worlds", type=Path, help="where the worlds are, or are to be made; a temporary folder if none"
    )
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    missed, found = [], dict[str, Any]()
    with contextlib.ExitStack() as stack:
        place = words.worlds or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        known = [place / "toy", place / "cartpole"]
        folders = known if all(map(Path.is_dir, known)) else make_worlds(place)
        address = stack.enter_context(served(words.service, folders))
        if "episodes" in words.only:
            found["episodes"] = [time_episodes(address, folder.name, words.rounds) for folder in folders]
            for row in found["episodes"]:
                print(f"{row['world']}: {row}")
                missed += [] if row["ratio"] >= FASTER else [f"{row['world']}: {row['ratio']} times the steps a second"]
        if "sampling" in words.only:
            found["sampling"] = time_updates(address, 5 * words.rounds)
            for kind, row in found["sampling"].items():
                print(f"{kind}: {row}")
            share = min(row["share"] for row in found["sampling"].values())
            missed += [] if share <= SAMPLING_SHARE else [f"{share} of the seconds between two updates"]
        if "ppo" in words.only:
            stack.enter_context(local_ray())
            found["ppo"] = compare(train_all(address, words.seeds))
            print(found["ppo"])
    if words.json:
        print(json.dumps(found))
    for line in missed:
        print(f"missed: {line}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
