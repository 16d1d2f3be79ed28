"""Importing it registers the toy's reality with Gymnasium, and a moody one: for processes that learn of them by id."""

from __future__ import annotations

import os
import time
from pathlib import Path

import gymnasium as gym
from toy_reality import ToyReality

MODULE_ID = "toy_registered:tests/ToyInAModule-v0"
MOODY_ID = "toy_registered:tests/MoodyReality-v0"


class MoodyReality(ToyReality):
    """Does at each step what a file says: hang, die or raise."""

    def __init__(self, mood: str) -> None:
        super().__init__()
        self.mood = Path(mood)

    def step(self, action):
        mood = self.mood.read_text() if self.mood.exists() else ""
        if mood == "hang":
            time.sleep(3600)
        if mood == "die":
            os._exit(3)
        if mood == "raise":
            raise ZeroDivisionError("the motor is cold")
        return super().step(action)


for module_id, entry in ((MODULE_ID, "toy_reality:ToyReality"), (MOODY_ID, "toy_registered:MoodyReality")):
    if (name := module_id.partition(":")[2]) not in gym.registry:
        gym.register(name, entry, max_episode_steps=200, reward_threshold=50.0)
