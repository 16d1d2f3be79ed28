"""Proving grounds: small Gymnasium environments with a known truth. Gymnasium and numpy only; importing registers them.

    gym.make("simservice.grounds:simservice/Catch-v0")

`simservice collect simservice/Catch-v0` needs no module name. Every environment tells its truth (`truth`, a dict of
numbers) and has a function beside it that reads the same numbers from frames, so a dream can be held against it.
"""

from __future__ import annotations

import gymnasium as gym

_ENTRIES: dict[str, tuple[str, int | None]] = {
    "simservice/Catch-v0": ("catch:Catch", 14),  # a world that never ends an episode is cut
    "simservice/CartPolePixels-v0": ("cartpole_pixels:CartPolePixels", 500),
    "simservice/GridDot-v0": ("grid_dot:GridDot", 50),
    "simservice/PointMass-v0": ("point_mass:PointMass", 50),
    "simservice/TwoRoom-v0": ("point_mass:TwoRoom", 100),
    "simservice/FlipBall-v0": ("flip_ball:FlipBall", 50),
    "simservice/MemoryDoor-v0": ("memory_door:MemoryDoor", 60),
    "simservice/Frames-v0": ("frames:Frames", None),
}

IDS = tuple(_ENTRIES)


def register() -> None:
    """Registers every proving ground; a second call changes nothing."""
    for env_id, (place, limit) in _ENTRIES.items():
        if env_id not in gym.registry:
            gym.register(env_id, entry_point=f"simservice.grounds.{place}", max_episode_steps=limit)


register()
