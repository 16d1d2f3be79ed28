"""What the numbers of well-known environments mean, for people."""

from __future__ import annotations

NAMES = {
    "CartPole-v1": ("cart position", "cart speed", "pole angle", "pole's angular speed"),
    "Pendulum-v1": ("cosine of the angle", "sine of the angle", "angular speed"),
    "MountainCar-v0": ("position", "speed"),
    "MountainCarContinuous-v0": ("position", "speed"),
    "Acrobot-v1": (
        "cosine of angle 1", "sine of angle 1", "cosine of angle 2", "sine of angle 2",
        "angular speed 1", "angular speed 2",
    ),
    "LunarLander-v3": (
        "horizontal position", "height", "horizontal speed", "vertical speed", "angle", "angular speed",
        "left leg's contact", "right leg's contact",
    ),
}  # fmt: skip


def feature_name(env_id: str | None, place: int) -> str:
    """Of the number at this place of the flat observation."""
    names = NAMES.get(env_id or "", ())
    return names[place] if place < len(names) else f"observation {place}"
