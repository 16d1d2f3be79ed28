"""Acts in real environments by imagining: before every real step it tries many futures of a served world.

    python agents/cem_planner.py --address 127.0.0.1:50051 --world cartpole --env CartPole-v1
    python agents/cem_planner.py --world pendulum --env Pendulum-v1 --method mppi --horizon 25

Each real environment has a lane of the world. Before a step the lanes are grounded in what is really seen, and copies
of them play sampled action sequences, all environments' at once, in one message an iteration (open loop).
"""

import argparse
from collections import deque
from collections.abc import Callable

import gymnasium as gym
import numpy as np
from sequences import Weights, believe, cross_entropy, path_integral


class Planner:
    """Plans for all lanes of a served world at once."""

    def __init__(
        self, world: gym.vector.VectorEnv, weigh: Weights, *, horizon: int, samples: int, iterations: int,
        discount: float, seed: int,
    ) -> None:  # fmt: skip
        self._world, self._weigh = world, weigh
        self._samples, self._iterations = samples, iterations
        self._random = np.random.default_rng(seed)
        self._discounts = discount ** np.arange(horizon)
        self._belief = believe(world.single_action_space, horizon, world.num_envs)

    def act(self, context: dict[str, np.ndarray]) -> np.ndarray:
        """The next actions; `context` holds what was really seen and done, as reset(options=...) takes it."""
        self._world.reset(options={"context": context})
        for _ in range(self._iterations):
            tried = self._belief.sample(self._samples, self._random)
            self._belief.refit(tried, self._weigh(self.returns(tried)))
        chosen = self._belief.first()
        self._belief.shift()
        return chosen

    def returns(self, tried: np.ndarray) -> np.ndarray:
        """(environments, samples) discounted returns of sequences, each copy with luck of its own."""
        steps, environments, samples = tried.shape[:3]
        sequences = tried.reshape(steps, environments * samples, *tried.shape[3:])
        seeds = self._random.integers(0, 2**62, environments * samples)
        futures = self._world.imagine(sequences, copies=samples, luck="fresh", seeds=seeds, observation=False)
        return (self._discounts @ futures.reward).reshape(environments, samples)


def play(
    real: gym.vector.VectorEnv, act: Callable[[dict[str, np.ndarray]], np.ndarray], *, frames: int, seed: int,
    max_steps: int,
) -> np.ndarray:  # fmt: skip
    """(environments,) returns of one real episode each; `act` sees the last `frames` observations."""
    observation, _ = real.reset(seed=seed)
    seen, done = deque([observation], maxlen=frames), deque[np.ndarray](maxlen=frames - 1)
    returns, alive = np.zeros(real.num_envs), np.ones(real.num_envs, dtype=bool)
    for _ in range(max_steps):
        context = {"observation": np.stack(seen, 1)}  # (environments, frames, ...)
        action = act(context if len(seen) == 1 else {**context, "action": np.stack(done, 1)})
        observation, reward, terminated, truncated, _ = real.step(action)
        returns += np.where(alive, reward, 0.0)
        alive &= ~(terminated | truncated)
        if not alive.any():
            break
        seen.append(observation)
        done.append(action)
    return returns


def main() -> None:
    """Plays real episodes and prints their returns beside those of random play."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:50051")
    parser.add_argument("--world", required=True, help="name, or name@version")
    parser.add_argument("--env", required=True, help="the real environment, e.g. CartPole-v1")
    parser.add_argument("--method", choices=("cem", "mppi"), default="cem")
    parser.add_argument("--episodes", type=int, default=20, help="real ones, played beside each other")
    parser.add_argument("--horizon", type=int, default=50, help="imagined steps of a future")
    parser.add_argument("--samples", type=int, default=64, help="futures of an environment and iteration")
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--elites", type=int, default=12, help="cem: how many of them count")
    parser.add_argument("--temperature", type=float, default=0.5, help="mppi: in standard deviations of the returns")
    parser.add_argument("--discount", type=float, default=0.99)
    parser.add_argument("--frames", type=int, default=1, help="real observations that ground a lane")
    parser.add_argument("--uncertainty-penalty", type=float, default=0.0, help="what a future loses for doubt")
    parser.add_argument("--max-steps", type=int, default=10_000, help="of a real episode, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    world = gym.make_vec(
        "simservice.client:simservice/World-v0",
        num_envs=args.episodes,
        vectorization_mode="vector_entry_point",
        address=args.address,
        world=args.world,
        uncertainty_penalty=args.uncertainty_penalty,
    )
    real = gym.make_vec(args.env, num_envs=args.episodes, vectorization_mode="sync")
    real.action_space.seed(args.seed)
    weigh = cross_entropy(args.elites) if args.method == "cem" else path_integral(args.temperature)
    planner = Planner(
        world, weigh, horizon=args.horizon, samples=args.samples, iterations=args.iterations, discount=args.discount,
        seed=args.seed,
    )  # fmt: skip
    settings = {"frames": args.frames, "seed": args.seed, "max_steps": args.max_steps}
    for name, act in (("random", lambda _: real.action_space.sample()), (args.method, planner.act)):
        returns = play(real, act, **settings)
        span = f"worst {returns.min():.1f}, best {returns.max():.1f}"
        print(f"{name}: {len(returns)} real episodes, mean return {returns.mean():.1f}, {span}", flush=True)
    world.close()
    real.close()


if __name__ == "__main__":
    main()
