"""Rollouts by an uploaded policy of worlds on a device: graphs against eager calls, bit for bit, and steps a second.

For every world: a rollout by graphs beside one by eager calls and beside the same actions stepped one by one (bits),
beside the same rollout on the CPU (how far apart), then rollouts of several numbers of lanes, by both, with what the
policy and the draw of its actions alone take on the host. Exits with 1 where bits differ.

    python benchmarks/device_rollouts.py [--families ensemble,rssm] [--lanes 64,1024,16384] [--device cuda]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("SIMSERVICE_EXTRA_FAMILIES", "")

import numpy as np
import torch
from device_engine import made
from gymnasium.vector import AutoresetMode
from small_policy import mlp

from simservice.engine import engine as engines
from simservice.engine.sampling import ActionDistribution, SamplingParameters, sample
from simservice.engine.uploads.shelf import PolicyLibrary
from simservice.protocol.imagine import joined
from simservice.sessions.lanes import Reset, Step
from simservice.sessions.policies import MemoryPolicies
from simservice.types import Array, Imagine, Imagined, PolicyUse, leaves_of
from simservice.worlds.world import World

LANES, STEPS = 48, 32  # of what is compared
CELLS = 2**19  # steps of all lanes of a timed rollout, about
ROUNDS = 5


class Player:
    """One engine and one policy."""

    def __init__(self, world: World, lanes: int, device: str, *, graphs: bool) -> None:
        engines.GRAPHED = frozenset({torch.device(device).type}) if graphs else frozenset()
        self.loop = asyncio.new_event_loop()
        self.engine = engines.Engine(world, capacity=lanes, device=device)
        self.engine.start()
        self.policies = PolicyLibrary(MemoryPolicies(), world.spec.observation_space, world.spec.action_space)
        self.held, self.policy = self.loop.run_until_complete(self._begun(world, lanes))

    async def _begun(self, world: World, lanes: int) -> tuple[Array, Any]:
        held = self.engine.allocate(lanes, AutoresetMode.NEXT_STEP, np.arange(lanes))
        await self.engine.reset(held, Reset())
        [leaf] = leaves_of(world.spec.observation_space, "observation")
        actions: Any = world.spec.action_space
        put = await self.policies.put_whole("", mlp(leaf.shape[0], int(actions.n), leaf.path), "categorical")
        return held, await self.policies.loaded("", put.content_hash)

    def roll(self, steps: int, *, advance: bool = True) -> Imagined:
        """One rollout of all lanes."""
        use = PolicyUse(content_hash=self.policy.content_hash)
        return self.loop.run_until_complete(self._roll(Imagine(steps=steps, policy=use, advance=advance)))

    async def _roll(self, command: Imagine) -> Imagined:
        rollout = self.engine.imagine(self.held, command, self.policy)
        parts = [part async for part in rollout]
        if command.advance:
            await self.engine.commit(self.held, rollout)
        return joined(parts)

    def step(self, action: dict[str, Array]) -> Any:
        """One step of all lanes."""

        async def one() -> Any:
            return await self.engine.step(self.held, Step(action))

        return self.loop.run_until_complete(one())

    def close(self) -> None:
        """Ends its threads."""
        self.engine.stop()
        self.policies.stop()
        self.loop.close()


@contextmanager
def playing(family: str, lanes: int, device: str, *, graphs: bool, way: str = "eager") -> Iterator[Player]:
    """A world of its own each time, for weights move with it."""
    player = Player(made(family, way, device), lanes, device, graphs=graphs)
    try:
        yield player
    finally:
        player.close()


# ---- bits ------------------------------------------------------------------------------------------------------------


def told(played: Imagined) -> dict[str, Array]:
    """All numbers of a rollout by name."""
    found: dict[str, Array] = {"reward": played.reward, "terminated": played.terminated, "truncated": played.truncated}
    for lead, leaves in (("", played.observation), ("action ", played.action), ("policy ", played.outputs)):
        found.update({lead + name: array for name, array in (leaves or {}).items()})
    for name in ("log_probability", "uncertainty", "began"):
        if (array := getattr(played, name)) is not None:
            found[name] = array
    return found


def differing(one: dict[str, Array], two: dict[str, Array]) -> list[str]:
    """Names of what is not the same, bit for bit."""
    return [name for name in {**one, **two} if not np.array_equal(one.get(name), two.get(name), equal_nan=True)]


def compare(family: str, device: str) -> bool:
    """Graphs beside eager calls, single steps and the CPU; whether bits are what they must be."""
    with playing(family, LANES, device, graphs=True) as player:
        branch = told(player.roll(STEPS, advance=False))
        graphed = told(player.roll(STEPS))
        again = told(player.roll(STEPS))
        sizes = player.engine.sizes
    with playing(family, LANES, device, graphs=False) as player:
        eager = told(player.roll(STEPS))
        eager_again = told(player.roll(STEPS))
        same_sizes = player.engine.sizes == sizes
    with playing(family, LANES, device, graphs=True) as player:
        actions = [{"action": row} for row in graphed["action action"]]
        steps = [player.step(action) for action in actions]
        stepped = {
            "observation": np.stack([step.observation["observation"] for step in steps]),
            "reward": np.stack([step.reward for step in steps]),
            "terminated": np.stack([step.terminated for step in steps]),
        }
    with playing(family, LANES, "cpu", graphs=False) as player:
        here = told(player.roll(STEPS))
    verdicts = {
        "what if = advance": differing(branch, graphed),
        "graphs = eager": differing(graphed, eager) + differing(again, eager_again),
        "rollout = steps": differing({name: graphed[name] for name in stepped}, stepped),
    }
    apart = [
        float(np.abs(graphed["observation"][row] - here["observation"][row]).max())
        for row in (0, STEPS // 4, STEPS - 1)
    ]
    print(f"{family}: sizes {sizes} ({'the same' if same_sizes else 'OTHERS'} in eager calls)")
    for what, names in verdicts.items():
        print(f"  {what}: {'the same bits' if not names else 'DIFFERS in ' + ', '.join(names)}")
    print(f"  from the CPU's, largest difference of an observation after 1, {STEPS // 4 + 1}, {STEPS} steps: {apart}")
    # Sizes that round otherwise may be chosen where graphs pad to larger ones; then only like is compared with like.
    return not any(names for what, names in verdicts.items() if same_sizes or what != "graphs = eager")


# ---- speed -----------------------------------------------------------------------------------------------------------


def seconds(work: Any) -> float:
    """The quickest of some calls, after one to warm up."""
    found = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found[1:])


def time_rollouts(family: str, lanes: int, device: str, way: str) -> dict[str, Any]:
    """Steps a second, and how a step's time is spent."""
    steps = max(8, min(128, CELLS // lanes))
    with playing(family, lanes, device, graphs=way != "eager", way=way) as player:
        whole = seconds(lambda: player.roll(steps)) / steps
        observation = {"observation": np.zeros((lanes, *player.engine.spec.observation_space.shape), np.float32)}
        policy = seconds(lambda: player.policy(observation))
        distribution = ActionDistribution("categorical", player.engine.spec.action_space)
        outputs = player.policy(observation)
        luck = {"uniform": np.random.default_rng(0).random((lanes, 1), np.float32)}
        drawn = seconds(lambda: sample(distribution, outputs, luck, SamplingParameters()))
    return {
        "family": family,
        "lanes": lanes,
        "way": way,
        "steps_per_s": lanes / whole,
        "step_us": whole * 1e6,
        "policy_us": policy * 1e6,
        "draw_us": drawn * 1e6,
    }


def main() -> int:
    """1 where bits differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="ensemble,rssm")
    parser.add_argument("--lanes", default="64,1024,16384")
    parser.add_argument("--ways", default="eager,graph,compiled")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/device_rollouts.json"))
    words = parser.parse_args()
    torch.set_num_threads(1)
    if words.device == "cuda":
        print(torch.cuda.get_device_name(), "torch", torch.__version__)
    sound, rows = True, []
    for family in words.families.split(","):
        sound &= compare(family, words.device)
        for lanes in map(int, words.lanes.split(",")):
            for way in words.ways.split(","):
                row = time_rollouts(family, lanes, words.device, way)
                rows.append(row)
                print(
                    f"{family:9} {lanes:6} lanes {way:8}: {row['steps_per_s']:12,.0f} steps/s, "
                    f"a step {row['step_us']:8.1f} us, of it the policy {row['policy_us']:7.1f}, "
                    f"its draw {row['draw_us']:6.1f}",
                    flush=True,
                )
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(json.dumps(rows, indent=1))
    return int(not sound)


if __name__ == "__main__":
    sys.exit(main())
