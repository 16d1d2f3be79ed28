"""Ways to get trajectories of a policy: a bare loop beside the world, a rollout on the server, and what RLlib's own
EnvRunner and ours deliver as episodes. All play 256 lanes for 64 steps with an MLP of 64 x 64.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import rollouts
import torch
from small_policy import mlp

from bench import stand_ins
from bench.timing import Round, timed
from simservice.types import leaves_of
from simservice.worlds.world import World

LANES, STEPS = 256, 64


class Rolls:
    """Plays rollouts; a step of the clock is a whole one."""

    def __init__(self, roll: Callable[[], object]) -> None:
        self._roll = roll

    def play(self, seconds: float) -> Round:
        """For so long."""
        return timed(self._roll, LANES * STEPS, seconds)


def _policy(world: World) -> bytes:
    [leaf] = leaves_of(world.spec.observation_space, "observation")
    actions: Any = world.spec.action_space
    return mlp(leaf.shape[0], int(actions.n), leaf.path)


@contextlib.contextmanager
def here(kind: str) -> Iterator[Rolls]:
    """World and policy in this process and nothing else."""
    torch.set_num_threads(1)
    world = stand_ins.world(kind, kind)
    yield Rolls(rollouts.bare(world, _policy(world), LANES, STEPS))


@contextlib.contextmanager
def server(kind: str, address: str, name: str) -> Iterator[Rolls]:
    """Rollouts on the server, their trajectories as arrays here."""
    with rollouts.served(address, name, _policy(stand_ins.world(kind, kind)), LANES, STEPS) as roll:
        yield Rolls(roll)


@contextlib.contextmanager
def runner(address: str, name: str, ours: bool) -> Iterator[Rolls]:
    """An EnvRunner of RLlib's PPO, its own or ours; what it samples are episodes."""
    from simservice.client import rllib  # noqa: PLC0415 - takes seconds

    if ours and not hasattr(rllib, "RolloutEnvRunner"):
        raise ImportError("no EnvRunner by rollouts", name="simservice.client.rllib.RolloutEnvRunner")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner  # noqa: PLC0415
    settings = rllib.PPOSettings(num_envs=LANES, rollout_steps=STEPS)
    more: dict[str, Any] = {"rollouts": True} if ours else {}
    config = rllib.served_config(address, name, settings, **more)
    made = (config.env_runner_cls or SingleAgentEnvRunner)(config=config)

    def sample() -> None:
        made.sample(num_timesteps=LANES * STEPS)
        made.get_metrics()

    yield Rolls(sample)
    made.stop()
