"""Trains Stable-Baselines3's PPO in a served world; one message steps all of its environments.

python agents/ppo_sb3.py --address 127.0.0.1:50051 --world cartpole --steps 100000

Worlds of pictures (height, width, channels; 16 pixels a side or more) get two small convolutions and settings of their
own, which were chosen on the real Catch: with `--num-envs 64 --steps 26880` it is solved on every seed that was tried.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from torch import nn

VECTORS: dict[str, Any] = {
    **{"policy": "MlpPolicy", "n_steps": 64, "batch_size": 512, "n_epochs": 10, "learning_rate": 1e-3},
    **{"gamma": 0.98, "gae_lambda": 0.9},
}


class Eyes(BaseFeaturesExtractor):
    """Two small convolutions: SB3's own ask for 36 pixels a side, and are wide for what small pictures show."""

    def __init__(self, observation_space: gym.Space[Any], features_dim: int = 128) -> None:
        super().__init__(observation_space, features_dim)
        channels = observation_space.shape[0]
        seen = nn.Sequential(nn.Conv2d(channels, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 32, 2, 2), nn.ReLU(), nn.Flatten())
        with torch.no_grad():
            width = seen(torch.zeros(1, *observation_space.shape)).shape[1]
        self.layers = nn.Sequential(seen, nn.Linear(width, features_dim), nn.ReLU())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(B, channels, height, width) light of 0 to 1 -> (B, features_dim)."""
        return self.layers(observations)


PICTURES: dict[str, Any] = {
    **{"policy": "CnnPolicy", "n_steps": 14, "batch_size": 224, "n_epochs": 4, "gamma": 0.95, "ent_coef": 0.01},
    **{"learning_rate": lambda left: 1e-3 * max(left, 0.05), "policy_kwargs": {"features_extractor_class": Eyes}},
}


class ServedVecEnv(VecEnv):
    """A served world as SB3 wants its environments: a lane that ends is started again within the same step."""

    def __init__(self, address: str, world: str, num_envs: int, **doors: Any) -> None:
        """`doors` are what gym.make_vec takes besides: token, tls, patience_s."""
        self.envs = gym.make_vec(
            "simservice.client:simservice/World-v0",
            num_envs=num_envs,
            vectorization_mode="vector_entry_point",
            address=address,
            world=world,
            autoreset_mode=AutoresetMode.SAME_STEP,
            **doors,
        )
        self.render_mode = None
        super().__init__(num_envs, self.envs.single_observation_space, self.envs.single_action_space)

    def reset(self) -> Any:
        """Starts all lanes, with the seeds that seed() gave."""
        seeds = list(self._seeds) if any(seed is not None for seed in self._seeds) else None
        observation, _ = self.envs.reset(seed=seeds)
        self._reset_seeds()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions for step_wait."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Steps all lanes; the info of a lane that ended holds its last observation, as SB3 wants it."""
        observation, reward, terminated, truncated, infos = self.envs.step(self._actions)
        ended = terminated | truncated
        lane_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for lane in np.flatnonzero(ended):
            lane_infos[lane]["terminal_observation"] = infos["final_obs"][lane]
            lane_infos[lane]["TimeLimit.truncated"] = bool(truncated[lane] and not terminated[lane])
        return observation, reward.astype(np.float32), ended, lane_infos

    def close(self) -> None:
        """Ends the session."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """All lanes share their attributes."""
        return [getattr(self.envs if hasattr(self.envs, attr_name) else self, attr_name)] * self._count(indices)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """A served world cannot be changed from here."""
        raise AttributeError(f"the attribute {attr_name!r} of a served world cannot be set")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """A served world has no further methods."""
        raise AttributeError(f"a served world has no method {method_name!r}")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Never: the lanes are not Python environments."""
        return [False] * self._count(indices)

    def _count(self, indices: int | Sequence[int] | None) -> int:
        return self.num_envs if indices is None else 1 if isinstance(indices, int) else len(indices)


def learner(envs: VecEnv, seed: int, **settings: Any) -> PPO:
    """An untrained PPO for these environments; further settings are SB3's."""
    chosen = PICTURES if is_image_space(envs.observation_space) else VECTORS
    return PPO(env=envs, seed=seed, device="cpu", **{**chosen, **settings})


def main() -> None:
    """Trains, tells how it goes, and saves the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:50051")
    parser.add_argument("--world", required=True, help="name, or name@version")
    parser.add_argument("--num-envs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100_000, help="imagined steps in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="where SB3 saves its model")
    args = parser.parse_args()

    envs = VecMonitor(ServedVecEnv(args.address, args.world, args.num_envs))
    model = learner(envs, args.seed, verbose=1)
    model.learn(args.steps)
    if args.out:
        model.save(args.out)
    envs.close()


if __name__ == "__main__":
    main()
