"""Trains PPO on RLlib's new API stack in a served world, and writes the policy as a small file of plain arrays.

    python agents/ppo_rllib.py --address 127.0.0.1:50051 --world cartpole --out runs/policy.npz
    python agents/ppo_rllib.py --world cartpole --rollouts                 # several times as fast
    python agents/ppo_rllib.py --world cartpole --num-env-runners 2        # on more cores, or another machine

Every EnvRunner is one session of the service, and steps its --num-envs imagined environments with one message; or, with
--rollouts, sends the policy there and gets whole trajectories back.
"""

import argparse

from simservice.client.rllib import PPOSettings, Progress, local_ray, served_config, train_ppo


def main() -> None:
    """Trains, tells how it goes, and saves the policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:50051")
    parser.add_argument("--world", required=True, help="name, or name@version")
    parser.add_argument("--steps", type=int, default=PPOSettings.total_steps, help="imagined steps in all")
    parser.add_argument("--num-envs", type=int, default=PPOSettings.num_envs, help="lanes of one EnvRunner")
    parser.add_argument("--num-env-runners", type=int, default=0, help="0: sample in the learner's own process")
    parser.add_argument("--rollouts", action="store_true", help="have the server play the policy, not step by step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="where the policy goes, e.g. runs/policy.npz")
    args = parser.parse_args()

    settings = PPOSettings(total_steps=args.steps, num_envs=args.num_envs, num_env_runners=args.num_env_runners)
    with local_ray(num_cpus=1 + args.num_env_runners):
        config = served_config(args.address, args.world, settings, seed=args.seed, rollouts=args.rollouts)
        trained = train_ppo(config, settings, progress=tell)
    speed = trained.last.steps / trained.last.elapsed_s
    print(f"{trained.last.steps:,} imagined steps at {speed:,.0f} a second, learning included")
    if args.out:
        print(f"policy written to {trained.policy.save(args.out)}")


def tell(made: Progress) -> None:
    """One line an update."""
    print(f"{made.steps:>9,} imagined steps  mean return {made.return_mean:8.1f}  {made.elapsed_s:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
