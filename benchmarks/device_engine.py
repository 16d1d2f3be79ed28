"""How fast lanes step on a CUDA device, as a share of a floor that is counted first; graphs against eager calls.

The floor of a tick is what cannot be saved: the operations over the measured rate of matrix products, or the bytes of
rows and weights over the measured rate of copies, whichever takes longer, and what is asked and said over the measured
rate of pinned copies. Prints a row for every world, number of lanes and way, and writes them as JSON.

    python benchmarks/device_engine.py [--families ensemble,rssm] [--lanes 1,64,1024,16384] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch.utils.flop_counter import FlopCounterMode
from world_lanes import record

from simservice.engine.arena import Arena
from simservice.engine.batching import span
from simservice.engine.control import Control
from simservice.engine.graphs import compile_calls
from simservice.engine.rounding import prepared_sizes
from simservice.engine.runner import Runner
from simservice.engine.stats import EngineStats
from simservice.types import WorldSpec
from simservice.worlds import registry
from simservice.worlds.noise import lane_draws
from simservice.worlds.world import BUCKETS, World

FAMILIES = {
    "ensemble": ("CartPole-v1", {}),
    "rssm": ("CartPole-v1", {}),
}
SIZES = (*BUCKETS, 4096, 16_384)
ROUNDS, WARM = 200, 20
DEVICE = torch.device("cuda")


def made(family: str, way: str = "eager", device: str = "cuda") -> World:
    """A world that saw some real steps and no gradient: its speed is that of a trained one."""
    env_id, overrides = FAMILIES[family]
    env = gym.make(env_id)
    spec = WorldSpec(
        name=family,
        version="",
        family=family,
        observation_space=env.observation_space,
        action_space=env.action_space,
        max_episode_steps=500,
        capabilities=frozenset({"uncertainty", "context"}),
    )
    torch.manual_seed(0)  # the same weights each time
    world = registry.create(family, spec, overrides)
    world.prepare(record(env_id, 600, 0, "random"))
    if way == "compiled":
        compile_calls(world)
    return world.eval().requires_grad_(False).to(device)


# ---- ceilings --------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Of one call, by the device's clock."""
    work()
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / repeats


def ceilings() -> dict[str, float]:
    """Measured on this device, now."""
    big = torch.empty(2**28, dtype=torch.float32, device=DEVICE)
    other = torch.empty_like(big)
    square = torch.randn(8192, 8192, device=DEVICE)
    host = torch.empty(2**24, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(2**24, dtype=torch.uint8, device=DEVICE)
    graph = torch.cuda.CUDAGraph()
    small = torch.zeros(64, device=DEVICE)
    with torch.cuda.graph(graph):
        for _ in range(1000):
            small.add_(1.0)
    empty = []
    nothing = torch.cuda.CUDAGraph()
    with torch.cuda.graph(nothing):
        small.add_(1.0)
    for _ in range(200):
        began = time.perf_counter()
        nothing.replay()
        torch.cuda.synchronize()
        empty.append(time.perf_counter() - began)
    return {
        "copy_bytes_per_s": 2 * big.nbytes / seconds(lambda: other.copy_(big), 10),
        "float32_flops_per_s": 2 * 8192**3 / seconds(lambda: square @ square, 5),
        "up_bytes_per_s": host.nbytes / seconds(lambda: there.copy_(host, non_blocking=True), 20),
        "down_bytes_per_s": host.nbytes / seconds(lambda: host.copy_(there, non_blocking=True), 20),
        "kernel_in_a_graph_s": seconds(graph.replay, 5) / 1000,
        "replay_s": statistics.median(empty),
    }


def floor_s(world: World, size: int, known: dict[str, float]) -> dict[str, float]:
    """Of one tick of so many lanes."""
    seed = torch.arange(size, device=DEVICE)
    state = world.init(lane_draws(world.draws["init"], seed, seed * 0, "init"))
    draws = lane_draws(world.draws["step"], seed, seed * 0 + 1, "step")
    action = {"action": torch.zeros(size, dtype=torch.int64, device=DEVICE)}
    with FlopCounterMode(display=False) as counter:
        after, _ = world.step(state, action, draws)
        observation = world.emit(after)
    rows = sum(row.nbytes for row in after.values())
    weights = sum(tensor.nbytes for tensor in world.state_dict().values())
    asked = size * (3 * 8 + 1 + 8)
    said = sum(leaf.nbytes for leaf in observation.values()) + size * (8 + 1 + 4 + 1)
    parts = {
        "operations_s": counter.get_total_flops() / known["float32_flops_per_s"],
        "bytes_s": (2 * rows + weights) / known["copy_bytes_per_s"],
        "wire_s": asked / known["up_bytes_per_s"] + said / known["down_bytes_per_s"],
    }
    parts["floor_s"] = max(parts["operations_s"], parts["bytes_s"]) + parts["wire_s"] + known["replay_s"]
    return parts


# ---- ticks -----------------------------------------------------------------------------------------------------------


def tick_s(world: World, lanes: int, *, graphs: bool) -> list[float]:
    """Seconds of each of some steps of that many lanes, copies up and down and the host's columns among them."""
    capacity = max(lanes, 16)
    arena, control = Arena(world, capacity, "cuda"), Control(capacity + 1)
    size = next(size for size in SIZES if size >= lanes)
    runner = Runner(world, arena, control, (size,), EngineStats(capacity=capacity))
    runner.start(np.array([arena.scratch]))
    if graphs:
        runner.prepare_graphs()
    mine = arena.allocate(lanes)
    control.open(mine, AutoresetMode.NEXT_STEP, np.arange(lanes))
    runner.start(mine)
    where, found = span(mine), []
    action = {"action": np.random.default_rng(0).integers(0, 2, lanes)}
    for number in range(ROUNDS + WARM):
        began = time.perf_counter()
        runner.step(mine, where, action)
        if number >= WARM:
            found.append(time.perf_counter() - began)
    return found


def alike(world: World) -> bool:
    """Whether graphs give the bits that eager calls give."""
    seen = []
    for graphs in (False, True):
        arena, control = Arena(world, 64, "cuda"), Control(65)
        runner = Runner(world, arena, control, (64,), EngineStats(capacity=64))
        runner.start(np.array([arena.scratch]))
        control.counter[:] = 0
        if graphs:
            runner.prepare_graphs()
        mine = arena.allocate(48)
        control.open(mine, AutoresetMode.NEXT_STEP, np.arange(48))
        runner.start(mine)
        for step in range(20):
            done = runner.step(mine, span(mine), {"action": np.full(48, step % 2)})
        seen.append(np.concatenate([done.observation["observation"].ravel(), done.reward]))
    return bool(np.array_equal(*seen))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="ensemble,rssm")
    parser.add_argument("--lanes", default="1,64,1024,16384")
    parser.add_argument("--out", type=Path, default=Path("runs/device_engine.json"))
    arguments = parser.parse_args()
    known = ceilings()
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    print({name: f"{value:.3g}" for name, value in known.items()})
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for family in arguments.families.split(","):
            world = made(family)
            sizes = prepared_sizes(world, "cuda", SIZES)
            print(f"{family}: sizes that round alike {sizes}; graphs give eager bits: {alike(world)}")
            for lanes in map(int, arguments.lanes.split(",")):
                floor = floor_s(world, next(size for size in SIZES if size >= lanes), known)
                for way in ("eager", "graph", "compiled"):
                    if way == "compiled" and lanes < 64:
                        continue  # seconds to compile, and nothing of what it saves is seen
                    times = tick_s(made(family, way), lanes, graphs=way != "eager")
                    p50, p99 = np.quantile(times, [0.5, 0.99])
                    row = {"family": family, "lanes": lanes, "way": way, "p50_s": p50, "p99_s": p99, **floor}
                    rows.append(row)
                    print(
                        f"{family:9} {lanes:6} lanes {way:8}: p50 {p50 * 1e6:8.1f} us, "
                        f"p99 {p99 * 1e6:8.1f} us, {lanes / p50:12,.0f} steps/s, "
                        f"floor {floor['floor_s'] * 1e6:6.1f} us, share {floor['floor_s'] / p50:5.2f}",
                        flush=True,
                    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"ceilings": known, "rows": rows}, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("SIMSERVICE_EXTRA_FAMILIES", "")
    main()
