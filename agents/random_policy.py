"""Plays a served world at random: the shortest agent there is, and a first look at a world's returns and speed.

python agents/random_policy.py --address 127.0.0.1:50051 --world cartpole
"""

import argparse
import time

import gymnasium as gym
import numpy as np


def main() -> None:
    """Steps all lanes at random, and prints what their episodes returned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:50051")
    parser.add_argument("--world", required=True, help="name, or name@version")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=500, help="of every lane")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    envs = gym.make_vec(
        "simservice.client:simservice/World-v0",
        num_envs=args.num_envs,
        vectorization_mode="vector_entry_point",
        address=args.address,
        world=args.world,
    )
    envs.action_space.seed(args.seed)
    envs.reset(seed=args.seed)
    returns, running, ended = [], np.zeros(args.num_envs), np.zeros(args.num_envs, dtype=bool)
    began = time.perf_counter()
    for _ in range(args.steps):
        _, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
        running += np.where(ended, 0.0, reward)  # the step after an end starts the lane again and earns nothing
        ended = terminated | truncated
        returns += running[ended].tolist()
        running[ended] = 0.0
    speed = args.num_envs * args.steps / (time.perf_counter() - began)
    envs.close()

    print(f"{args.num_envs * args.steps:,} imagined steps at {speed:,.0f} a second")
    if returns:
        print(f"{len(returns)} episodes, mean return {np.mean(returns):.1f}, best {np.max(returns):.1f}")
    else:
        print("no episode came to its end; ask for more --steps")


if __name__ == "__main__":
    main()
