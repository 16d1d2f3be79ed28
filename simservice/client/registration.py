"""Names the remote world to Gymnasium. Gymnasium 1.x loads no plugins by itself: importing simservice.client does it.

Light on purpose: everything else is imported when the first environment is made.
"""

from __future__ import annotations

import gymnasium as gym

ENV_ID = "simservice/World-v0"


def register() -> None:
    """Registers `simservice/World-v0`; a second call changes nothing.

    Neither Gymnasium's passive checker nor its order enforcer wraps it: the service refuses what is no action and
    steps that need a reset, in words, and time limits are the service's too.
    """
    if ENV_ID in gym.registry:
        return
    gym.register(
        ENV_ID,
        entry_point="simservice.client.env:RemoteEnv",
        vector_entry_point="simservice.client.vector_env:RemoteVectorEnv",
        disable_env_checker=True,
        order_enforce=False,
    )
