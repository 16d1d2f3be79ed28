"""Times one step of 64 lanes of the toy world: raw grpc.aio echo of the same bytes, without Ray, through Ray Serve.

Every server is a process of its own. The echo's client is gRPC's blocking stream, the service's is its own client's
way to the wire, without its encoding; "echo own" is the echo by that way, to tell what it saves. Rounds alternate
between the servers, so that what else the machine does meets all of them alike. Prints a table; with --json also one
line of JSON.

    python benchmarks/step_latency.py [--modes local,memory,ray] [--lanes 64] [--rounds 20] [--steps 200]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
os.environ["SIMSERVICE_EXTRA_FAMILIES"] = "toy:Toy"
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])

from bench.peers.raw_echo import RawStream  # noqa: E402
from bench.processes import served_by  # noqa: E402
from bench.raw_session import OwnStream, RawSession  # noqa: E402
from toy import Toy, ToyConfig, toy_spec  # noqa: E402

import simservice.client  # noqa: E402, F401 - names simservice/World-v0 to Gymnasium
from simservice.protocol.v1 import service_pb2 as pb  # noqa: E402
from simservice.serving.local import LocalConfig, serve_local  # noqa: E402
from simservice.serving.service import RayService  # noqa: E402
from simservice.serving.settings import GRPC_EXPERIMENTS  # noqa: E402
from simservice.types import Provenance  # noqa: E402
from simservice.worlds import checkpoint  # noqa: E402
from simservice.worlds.noise import lane_draws  # noqa: E402
from simservice.worlds.world import World  # noqa: E402

WORLD = "toy"
AS_SERVED = {"GRPC_EXPERIMENTS": GRPC_EXPERIMENTS}  # as `simservice serve --local` has it; the echo is gRPC as it comes


class Echo:
    """The floor: a server that answers bytes of the same sizes and does nothing."""

    def __init__(self, address: str, request: bytes, *, own: bool = False) -> None:
        self.stream: RawStream | OwnStream = OwnStream(address, WORLD) if own else RawStream(address)
        self.sent = request
        self.server_ns: list[int] = []

    def time_steps(self, count: int) -> list[float]:
        """Seconds of each of `count` exchanges."""
        times = []
        for _ in range(count):
            began = time.perf_counter()
            self.stream.ask(self.sent)
            times.append(time.perf_counter() - began)
        return times


# ---- servers -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def child(*words: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """This script as a server; yields its address."""
    command = [sys.executable, __file__, *words]
    own = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@contextlib.contextmanager
def ray_service(folder: Path) -> Iterator[str]:
    """Ray Serve with HAProxy; yields its address."""
    with RayService([folder], device="cpu") as service:
        yield service.address


# ---- measuring -----------------------------------------------------------------------------------------------------


def save_toy(folder: Path) -> Path:
    """The toy as it is measured: bounded, so that no lane ends but by the time limit."""
    checkpoint.save(Toy(toy_spec(name=WORLD), ToyConfig(growth=0.9)), folder, provenance=Provenance())
    return folder


def summary(times: list[float], floor: float | None) -> dict[str, float]:
    """Percentiles in microseconds, and the ratio of the median to the floor's."""
    p50, p99 = np.percentile(np.array(times) * 1e6, [50, 99])
    found = {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}
    return found if floor is None else {**found, "p50_to_echo": round(float(p50) / floor, 2)}


def measure(modes: list[str], lanes: int, rounds: int, steps: int) -> dict[str, Any]:
    """Alternating rounds over all servers."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = save_toy(Path(place) / WORLD)
        addresses = {}
        if "local" in modes:
            addresses["local"] = stack.enter_context(child("--serve-local", str(folder), environment=AS_SERVED))
        if "memory" in modes:
            words = ("--serve-local", str(folder), "--store-url", "memory:")
            addresses["memory"] = stack.enter_context(child(*words, environment=AS_SERVED))
        if "ray" in modes:
            addresses["ray"] = stack.enter_context(ray_service(folder))
        clients: dict[str, Echo | RawSession] = {
            mode: RawSession(address, WORLD, lanes) for mode, address in addresses.items()
        }
        request, reply_bytes = _sizes(clients, lanes)
        address = stack.enter_context(served_by("bench.peers.raw_echo", reply_bytes))
        clients |= {"echo": Echo(address, request), "echo own": Echo(address, request, own=True)}
        times: dict[str, list[float]] = {mode: [] for mode in clients}
        for client in clients.values():
            client.time_steps(steps)
            client.server_ns.clear()
        for _ in range(rounds):
            for mode, client in clients.items():
                times[mode] += client.time_steps(steps)
        floor = summary(times["echo"], None)["p50_us"]
        found = {mode: summary(times[mode], None if mode == "echo" else floor) for mode in times}
        for mode, client in clients.items():
            if client.server_ns:
                found[mode]["server_p50_us"] = round(float(np.median(client.server_ns)) / 1e3, 1)
            client.stream.close()
        for mode, address in addresses.items():
            found[mode]["gymnasium_p50_us"] = summary(time_gymnasium(address, lanes, steps), None)["p50_us"]
        return {"lanes": lanes, "request_bytes": len(request), "reply_bytes": reply_bytes, "modes": found}


def _sizes(clients: dict[str, Any], lanes: int) -> tuple[bytes, int]:
    """A step's request, and how long its reply is."""
    for client in clients.values():
        request = client.request()
        return request, len(client.stream.ask(request))
    observation = pb.Values(leaves=[bytes(16 * lanes)])
    reply = pb.Stepped(
        observation=observation, rewards=bytes(8 * lanes), terminated=bytes(lanes), truncated=bytes(lanes)
    )
    return bytes(8 * lanes), len(reply.SerializeToString())


def time_gymnasium(address: str, lanes: int, steps: int) -> list[float]:
    """Seconds of each env.step, as a user's loop has it."""
    env = gym.make_vec(
        "simservice/World-v0",
        num_envs=lanes,
        vectorization_mode="vector_entry_point",
        address=address,
        world=WORLD,
    )
    env.reset(seed=0)
    actions = env.action_space.sample()
    times = []
    for _ in range(2 * steps):
        began = time.perf_counter()
        env.step(actions)
        times.append(time.perf_counter() - began)
    env.close()
    return times


def in_process(world: World, batch: int = 16, seconds: float = 2.0) -> float:
    """Steps per second of a bare world on one thread, luck and observation included."""
    torch.set_num_threads(1)
    seed = torch.arange(batch)
    action = torch.from_numpy(np.stack([world.spec.action_space.sample() for _ in range(batch)]))

    def draws(call: Any, step: int) -> dict[str, torch.Tensor]:
        return lane_draws(world.draws[call], seed, torch.full_like(seed, step), call)

    with torch.inference_mode():
        state = world.init(draws("init", 0))
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            state, _ = world.step(state, {"action": action}, draws("step", count))
            world.emit(state)
            count += 1
        return batch * count / (time.perf_counter() - began)


def show(found: dict[str, Any], say: Callable[[str], None] = print) -> None:
    """The table."""
    say(f"{found['lanes']} lanes, request {found['request_bytes']} B, reply {found['reply_bytes']} B")
    say(f"{'':8}{'p50 us':>10}{'p99 us':>10}{'to echo':>9}{'server us':>11}{'gymnasium us':>14}")
    for mode, row in sorted(found["modes"].items(), key=lambda item: item[1]["p50_us"]):
        say(
            f"{mode:8}{row['p50_us']:>10}{row['p99_us']:>10}{row.get('p50_to_echo', ''):>9}"
            f"{row.get('server_p50_us', ''):>11}{row.get('gymnasium_p50_us', ''):>14}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--modes", default="local,ray", help="of: local, memory (no journal), ray; echo is always there"
    )
    parser.add_argument("--lanes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200, help="a round and server")
    parser.add_argument("--world", help="also time the bare world in this folder, in process (default: the toy)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve-local", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--store-url", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.serve_local is not None:
        config = LocalConfig(store_url=words.store_url)
        return serve_local([words.serve_local], config, ready=lambda service: print(service.address, flush=True))
    found = measure(words.modes.split(","), words.lanes, words.rounds, words.steps)
    show(found)
    bare = checkpoint.load(words.world).world if words.world else Toy(toy_spec(), ToyConfig(growth=0.9))
    found["bare_world"] = {"family": bare.family, "batch": 16, "steps_per_s": round(in_process(bare))}
    print(f"bare {bare.family} world at batch 16 on one thread: {found['bare_world']['steps_per_s']:,} steps/s")
    if words.json:
        print(json.dumps(found))
    return None


if __name__ == "__main__":
    main()
