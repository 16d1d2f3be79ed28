"""Times rollouts by an uploaded policy: a bare loop in this process, the engine, without Ray, through Ray Serve.

The bare loop calls the world and onnxruntime, samples, draws luck, and keeps what it sees in arrays made before: what a
user's own loop beside the world would do. Each way plays the same rollouts in turns, so that what else the machine does
meets all of them alike. Prints a table; with --json also one line of JSON.

    python benchmarks/rollouts.py [--ways bare,engine,local,ray] [--lanes 256] [--steps 64] [--rounds 15] [--world DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from gymnasium.vector import AutoresetMode
from small_policy import mlp

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
os.environ["SIMSERVICE_EXTRA_FAMILIES"] = "toy:Toy"
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])

from local_process import LocalProcess  # noqa: E402
from toy import Toy, ToyConfig, toy_spec  # noqa: E402

from simservice.client.policies import put_policy  # noqa: E402
from simservice.client.session import RemoteSession  # noqa: E402
from simservice.engine.engine import Engine  # noqa: E402
from simservice.engine.sampling import ActionDistribution, SamplingParameters, sample  # noqa: E402
from simservice.engine.uploads.shelf import PolicyLibrary  # noqa: E402
from simservice.serving.service import RayService  # noqa: E402
from simservice.sessions.lanes import Reset  # noqa: E402
from simservice.sessions.policies import MemoryPolicies  # noqa: E402
from simservice.types import Imagine, PolicyUse, Provenance, leaves_of  # noqa: E402
from simservice.worlds import checkpoint  # noqa: E402
from simservice.worlds.noise import lane_draws  # noqa: E402
from simservice.worlds.world import World  # noqa: E402

Roll = Callable[[], int]
"""Plays one rollout; returns how many steps it made."""


def bare(world: World, model: bytes, lanes: int, steps: int) -> Roll:
    """World and policy in this process and nothing else."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    policy = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in policy.get_outputs()]
    [leaf] = leaves_of(world.spec.observation_space, "observation")
    distribution, parameters = ActionDistribution("categorical", world.spec.action_space), SamplingParameters()
    seed = torch.arange(lanes)
    count = 0

    def draws(kind: Any, call: Any) -> Any:
        return lane_draws(kind, seed, torch.full((lanes,), count, dtype=torch.int64), call) if kind else {}

    state = world.init(draws(world.draws["init"], "init"))

    def roll() -> int:
        nonlocal state, count
        kept: dict[str, np.ndarray[Any, Any]] = {}

        def keep(number: int, **values: Any) -> None:
            for name, value in values.items():
                array = np.asarray(value)
                kept.setdefault(name, np.empty((steps, *array.shape), array.dtype))[number] = array

        with torch.inference_mode():
            observation = world.emit(state)[leaf.path].numpy()
            for number in range(steps):
                outputs = dict(zip(names, policy.run(names, {leaf.path: observation}), strict=True))
                luck = {name: draw.numpy() for name, draw in draws(distribution.draws, "explore").items()}
                sampled = sample(distribution, outputs, luck, parameters)
                count += 1
                state, out = world.step(
                    state, {"action": torch.from_numpy(sampled.action)}, draws(world.draws["step"], "step")
                )
                observation = world.emit(state)[leaf.path].numpy()
                keep(number, observation=observation, action=sampled.action, log=sampled.log_probability, **outputs)
                keep(number, reward=out.reward, terminated=out.terminated, uncertainty=out.uncertainty)
            if number == steps - 1 and bool(out.terminated.any()):  # a user's loop would start those lanes again
                state = world.init(draws(world.draws["init"], "init"))
        return steps * lanes

    return roll


@contextlib.contextmanager
def engine(world: World, model: bytes, lanes: int, steps: int) -> Iterator[Roll]:
    """The engine in this process, without sessions and wire."""
    loop = asyncio.new_event_loop()
    library = PolicyLibrary(MemoryPolicies(), world.spec.observation_space, world.spec.action_space)
    inside = Engine(world, capacity=lanes)
    inside.start()

    async def begin() -> tuple[Any, Any]:
        held = inside.allocate(lanes, AutoresetMode.NEXT_STEP, np.arange(lanes))
        await inside.reset(held, Reset())
        put = await library.put_whole("", model, "categorical")
        return held, await library.loaded("", put.content_hash)

    held, policy = loop.run_until_complete(begin())
    command = Imagine(steps=steps, policy=PolicyUse(content_hash=policy.content_hash), advance=True)

    async def one() -> int:
        rollout = inside.imagine(held, command, policy)
        async for _ in rollout:
            pass
        await inside.commit(held, rollout)
        return steps * lanes

    yield lambda: loop.run_until_complete(one())
    inside.stop()
    library.stop()
    loop.close()


@contextlib.contextmanager
def served(address: str, name: str, model: bytes, lanes: int, steps: int) -> Iterator[Roll]:
    """A client of a service: trajectories as arrays in this process."""
    content_hash = put_policy(address, name, model=model, distribution="categorical").content_hash
    session = RemoteSession(address, name, num_envs=lanes)
    session.reset()
    command = Imagine(steps=steps, policy=PolicyUse(content_hash=content_hash), advance=True)
    yield lambda: len(session.imagine(command)) * lanes
    session.close()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ways", default="bare,engine,local")
    parser.add_argument("--lanes", type=int, default=256)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--world", type=Path, help="a checkpoint folder with Box observations and Discrete actions")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measures and prints."""
    options = parse()
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        folder = options.world or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "toy"
        if options.world is None:
            checkpoint.save(Toy(toy_spec(), ToyConfig(noise=0.1, growth=0.95)), folder, provenance=Provenance())
        world = checkpoint.load(folder).world
        [leaf] = leaves_of(world.spec.observation_space, "observation")
        model = mlp(leaf.shape[0], int(world.spec.action_space.n), leaf.path)  # type: ignore[attr-defined]
        size = model, options.lanes, options.steps
        ways: dict[str, Roll] = {}
        for way in options.ways.split(","):
            if way == "bare":
                ways[way] = bare(world, *size)
            elif way == "engine":
                ways[way] = stack.enter_context(engine(world, *size))
            elif way == "local":
                address = stack.enter_context(LocalProcess(folder)).address
                ways[way] = stack.enter_context(served(address, world.spec.name, *size))
            elif way == "ray":
                address = stack.enter_context(RayService([folder], replicas=(1, 1))).address
                ways[way] = stack.enter_context(served(address, world.spec.name, *size))
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(options.rounds + 2):
            for way, roll in ways.items():
                began = time.perf_counter()
                made = roll()
                if number > 1:  # the first two warm up
                    rates[way].append(made / (time.perf_counter() - began))
    report(rates, options)


def report(rates: dict[str, list[float]], options: argparse.Namespace) -> None:
    """A row a way: medians, quartiles, and the median of the paired shares of the first way."""
    first = next(iter(rates.values()))
    print(f"{options.lanes} lanes x {options.steps} steps, {options.rounds} rounds, imagined steps a second")
    for way, found in rates.items():
        low, middle, high = statistics.quantiles(found, n=4)
        share = statistics.median(rate / base for rate, base in zip(found, first, strict=True))
        print(f"{way:>8}  {middle:12,.0f}  ({low:,.0f} to {high:,.0f})  {share:.2f}")
    if options.json:
        print(json.dumps({way: statistics.median(found) for way, found in rates.items()}))


if __name__ == "__main__":
    main()
