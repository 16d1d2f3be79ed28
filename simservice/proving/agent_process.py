"""The process that trains an agent in a world; see sealed.py. It has an address and a name, or a folder, no more.

Job: {"agents": [{"address", "world"} (through the client) or {"folder"} (the same lanes without the wire), each with
"seed" and "out"], "config": ...}. Writes each agent's weights to out.safetensors and what it showed to out.json.
"thresholded": ends are decided, not drawn (see thresholded.py).
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from gymnasium.vector import VectorEnv
from safetensors.torch import save_file

from simservice.proving.agent import AgentConfig, learn


def main(job: dict[str, Any]) -> None:
    """Trains each agent for as many steps as the configuration says, and writes its last policy."""
    torch.set_num_threads(1)
    config = AgentConfig(**job["config"])
    for errand in job["agents"]:
        envs = _in_process(errand, config) if "folder" in errand else _served(errand, config)
        learned = learn(envs, config, int(errand["seed"]))
        envs.close()
        save_file(dict(learned.agent.state_dict()), f"{errand['out']}.safetensors")
        found = {
            "world_return": learned.world_return,
            "world_returns": learned.world_returns,
            "training_returns": learned.training_returns,
            "steps": learned.steps,
            "seconds": learned.seconds,
        }
        Path(f"{errand['out']}.json").write_text(json.dumps(found))


def _served(errand: dict[str, Any], config: AgentConfig) -> VectorEnv[Any, Any, Any]:
    return gym.make_vec(
        "simservice.client:simservice/World-v0",
        num_envs=config.lanes,
        address=errand["address"],
        world=errand["world"],
        autoreset_mode="same_step",
        timeout_s=120.0,  # a first step of a world of pictures may take long on a busy machine
    )


def _in_process(errand: dict[str, Any], config: AgentConfig) -> VectorEnv[Any, Any, Any]:
    # By name: through the client these modules cannot be imported, and must not be needed.
    load = importlib.import_module("simservice.worlds.checkpoint").load
    world = load(errand["folder"]).world
    if errand.get("thresholded"):
        world = importlib.import_module("simservice.proving.thresholded").Thresholded(world)
    lanes: VectorEnv[Any, Any, Any] = importlib.import_module("simservice.proving.lanes").WorldLanes(
        world, config.lanes
    )
    return lanes
