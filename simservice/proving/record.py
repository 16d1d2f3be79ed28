"""Records what a recipe may learn from: exactly so many real steps, every one of them counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from simservice.data.collect import RealStepCounter, play_episode
from simservice.data.environments import close, make_environment
from simservice.data.policies import Policy, random_policy
from simservice.errors import InvalidInput
from simservice.types import Array, Episode

Behaviour = Literal["random", "mixed"]
"""Who acts: random play; or two fifths of it and then noisy controllers (CartPole)."""

_RANDOM_SHARE = 0.4  # of mixed play
_LONGEST = 2**31


def record(
    env_id: str,
    steps: int,
    seed: int,
    behaviour: Behaviour,
    counter: RealStepCounter,
    env_kwargs: Mapping[str, Any] | None = None,
) -> list[Episode]:
    """Exactly `steps` real steps as episodes; the last may be cut. Raises RealStepBudgetExceeded before the first."""
    counter.check(steps)
    environment = make_environment(env_id, env_kwargs)
    try:
        random = random_policy(environment.observation_space, environment.action_space, seed)
        chance, episodes, begun = np.random.default_rng(seed), list[Episode](), counter.steps
        while (taken := counter.steps - begun) < steps:
            controlled = behaviour == "mixed" and taken >= _RANDOM_SHARE * steps
            act = mixed_controller(chance, _state(environment)) if controlled else random
            first = int(np.random.SeedSequence([seed, len(episodes)]).generate_state(1)[0] % 2**31)
            limit = min(steps - taken, _LONGEST)
            episodes.append(
                play_episode(environment, act, first, policy_name=behaviour, max_steps=limit, counter=counter)
            )
        return episodes
    finally:
        close(environment)


def mixed_controller(chance: np.random.Generator, state: Callable[[], Array]) -> Policy:
    """A CartPole controller of one episode: its target drifts away, and it often acts at random.

    It looks at the true state, whatever the observation is; only what is observed is recorded.
    """
    epsilon, drift, time = float(chance.choice([0.05, 0.2, 0.5])), float(chance.normal()) * 0.03, 0

    def act(observation: Any) -> Array:
        nonlocal time
        time += 1
        if chance.random() < epsilon:
            return np.array([chance.integers(2)])
        place, speed, angle, turn = state()
        return np.array([int(10 * angle + 2 * turn + 0.35 * (place - drift * time) + 0.6 * speed > 0)])

    return act


def _state(environment: Any) -> Callable[[], Array]:
    real = environment.unwrapped
    if not hasattr(real, "x_threshold"):
        raise InvalidInput("behaviour", f"mixed play knows CartPole only, not {type(real).__name__}")
    return lambda: np.asarray(real.state, dtype=np.float64)
