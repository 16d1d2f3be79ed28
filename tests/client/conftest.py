"""Served worlds that the client's tests step."""

import numpy as np
import pytest
from gymnasium import spaces

from simservice.serving.local import LocalConfig, LocalServer


@pytest.fixture(scope="package")
def worlds(save_toy):
    """The address of: "steady" (exact), "lucky" (noise), "push" (Box actions), "brief" (12 steps, ends beyond 1.2)."""
    plain = {"observation_space": spaces.Box(-10, 10, (4,), np.float32)}
    painted = {**plain, "render_modes": ("rgb_array",), "metadata": {"render_fps": 25}}
    folders = [
        save_toy("steady", spec=painted),
        save_toy("brief", spec={**plain, "max_episode_steps": 12, "trust_horizon_steps": 7}, bound=1.2),
        save_toy("lucky", spec=plain, noise=0.05, growth=0.95),
        save_toy("push", spec={**plain, "action_space": spaces.Box(-1, 1, (2,), np.float32)}),
    ]
    with LocalServer(folders, store_url="memory:", config=LocalConfig(grace_s=0.1)) as server:
        yield server.address
