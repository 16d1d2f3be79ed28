"""Trained in the dream, scored in reality: PPO over several seeds, its real returns with intervals.

    python agents/transfer.py --address 127.0.0.1:50051 --world cartpole --env CartPole-v1 --seeds 5

What a world is worth is what an agent that has seen nothing else earns in the real environment. Random play and the
agent's return in its own dream stand beside it: a dream much better than reality was exploited, not understood.
"""

import argparse
from collections.abc import Callable

import gymnasium as gym
import numpy as np

from simservice.client.rllib import PPOSettings, Trained, local_ray, served_config, train_ppo

Act = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Trains once a seed, scores each policy in reality, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:50051")
    parser.add_argument("--world", required=True, help="name, or name@version")
    parser.add_argument("--env", required=True, help="the real environment's Gymnasium id")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=100, help="real episodes a seed")
    parser.add_argument("--steps", type=int, default=PPOSettings.total_steps, help="imagined steps a seed")
    args = parser.parse_args()

    settings = PPOSettings(total_steps=args.steps)
    print(f"{'policy':<12}{'in the dream':>14}{'in reality':>12}   95 % interval   worst")
    random = real_returns(args.env, random_policy(args.env), args.episodes, seed=0)
    print(row("random", float("nan"), random))
    means = []
    with local_ray():
        for seed in range(args.seeds):
            trained: Trained = train_ppo(served_config(args.address, args.world, settings, seed=seed), settings)
            returns = real_returns(args.env, trained.policy.greedy(), args.episodes, seed=1_000_000 + seed)
            means.append(returns.mean())
            print(row(f"seed {seed}", trained.last.return_mean, returns), flush=True)
    print(row("all seeds", float("nan"), np.array(means)))


def real_returns(env_id: str, act: Act, episodes: int, seed: int) -> np.ndarray:
    """The return of one episode in each of `episodes` real environments side by side."""
    envs = gym.make_vec(env_id, num_envs=episodes, vectorization_mode="sync")
    observation, _ = envs.reset(seed=seed)
    total, running = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while running.any():
        observation, reward, terminated, truncated, _ = envs.step(act(observation))
        total += np.where(running, reward, 0.0)
        running &= ~(terminated | truncated)
    envs.close()
    return total


def random_policy(env_id: str) -> Act:
    """Draws from the action space, whatever it sees."""
    env = gym.make(env_id)
    space = env.action_space
    env.close()
    space.seed(0)
    return lambda observation: np.stack([space.sample() for _ in observation])


def interval(values: np.ndarray, resamples: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    drawn = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def row(name: str, dream: float, returns: np.ndarray) -> str:
    """One line of the table."""
    low, high = interval(returns)
    imagined = f"{dream:14.1f}" if np.isfinite(dream) else f"{'-':>14}"
    return f"{name:<12}{imagined}{returns.mean():12.1f}   {low:6.1f} to {high:6.1f}{returns.min():8.1f}"


if __name__ == "__main__":
    main()
