"""Trains DQN (discrete actions) or SAC (others) on RLlib's new API stack in a served world, by rollouts on the server.

    python agents/off_policy_rllib.py --address 127.0.0.1:50051 --world pendulum
    python agents/off_policy_rllib.py --world cartpole --by-steps          # RLlib's own runner: a message a step

The policy goes to the server once a round, and whole trajectories come back for the replay buffer.
"""

import argparse
import logging
import time

from gymnasium import spaces
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from simservice.client.rllib import SERVED_ENV_ID, RolloutEnvRunner, local_ray
from simservice.client.worlds import get_world

UPDATES_A_STEP = {"dqn": 0.125, "sac": 1.0}
BATCH = {"dqn": 64, "sac": 128}


def main() -> None:
    """Trains, and tells how it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:50051")
    parser.add_argument("--world", required=True, help="name, or name@version")
    parser.add_argument("--steps", type=int, default=15_000, help="imagined steps in all")
    parser.add_argument("--num-envs", type=int, default=16, help="lanes")
    parser.add_argument("--rollout-steps", type=int, default=8, help="of every lane, in a round")
    parser.add_argument("--by-steps", action="store_true", help="RLlib's own runner instead of rollouts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    spec = get_world(args.address, args.world).spec
    kind = "dqn" if isinstance(spec.action_space, spaces.Discrete) else "sac"
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    with local_ray():
        algorithm = settings(kind, args).build_algo()
        began = time.monotonic()
        sampled = 0
        while sampled < args.steps:
            runners = algorithm.train()["env_runners"]
            sampled = int(runners["num_env_steps_sampled_lifetime"])
            mean = runners.get("episode_return_mean", float("nan"))
            print(
                f"{sampled:>8,} imagined steps  mean return {mean:9.1f}  {time.monotonic() - began:6.1f} s", flush=True
            )
        algorithm.stop()


def settings(kind: str, args: argparse.Namespace) -> DQNConfig | SACConfig:
    """RLlib's configuration; networks of 64 x 64."""
    config = DQNConfig() if kind == "dqn" else SACConfig()
    config.environment(SERVED_ENV_ID, env_config={"address": args.address, "world": args.world})
    config.env_runners(
        env_runner_cls=None if args.by_steps else RolloutEnvRunner,
        num_env_runners=0,
        num_envs_per_env_runner=args.num_envs,
        gym_env_vectorize_mode="vector_entry_point",
        rollout_fragment_length=args.rollout_steps,
    )
    config.learners(num_learners=0)
    config.training(
        train_batch_size_per_learner=BATCH[kind],  # SAC has one of its own, beside which train_batch_size is nothing
        training_intensity=UPDATES_A_STEP[kind] * BATCH[kind],
        num_steps_sampled_before_learning_starts=1_000,
    )
    if isinstance(config, DQNConfig):
        config.training(lr=1e-3, epsilon=[[0, 1.0], [args.steps // 3, 0.05]], target_network_update_freq=500)
    else:
        config.training(actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3, gamma=0.95, tau=0.01)
    config.reporting(
        min_time_s_per_iteration=0,
        min_sample_timesteps_per_iteration=1_000,
        metrics_num_episodes_for_smoothing=args.num_envs,  # the latest of each lane; RLlib's 100 would be all there are
    )
    config.rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="relu"))
    return config.debugging(seed=args.seed, log_level="ERROR")


if __name__ == "__main__":
    main()
