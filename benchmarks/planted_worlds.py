"""Many CartPoles and Pendulums at once in numpy, step for step Gymnasium's, into which changes can be planted.

A probe here is one lane: a fresh reset, at most H steps of one policy. Changes are arrays over probes, so that a ramp
is a change, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simservice.fidelity.traces import Traces
from simservice.types import Array

Act = Callable[[Array, np.random.Generator], Array]
"""Observations (P, D) to actions (P,)."""

HORIZON = 20
DEGREE = 2 * np.pi / 360


@dataclass(frozen=True, kw_only=True)
class Reality:
    """What can be changed in a world; each a number or one number a probe (P,)."""

    gravity: float | Array = 9.8
    length: float | Array = 1.0  # of CartPole's pole, as a factor
    force: float | Array = 1.0  # of CartPole's push or Pendulum's torque, as a factor
    flip: float | Array = 0.0  # probability that a random action is taken instead
    delay: int = 0  # steps until an action works
    noise: float = 0.0  # standard deviation added to the velocities at each step
    angle: float | Array = 12.0  # degrees at which CartPole's pole counts as fallen
    reward_shift: float | Array = 0.0
    reward_noise: float = 0.0
    rounding: float = 0.0  # sensor steps of this size: the rig's fault, not the world's


def cartpole_good(observation: Array, generator: np.random.Generator) -> Array:
    """Balances."""
    return (observation @ np.array([0.05, 0.1, 1.0, 0.3]) > 0).astype(np.int64)


def cartpole_random(observation: Array, generator: np.random.Generator) -> Array:
    """Any of the two pushes."""
    return generator.integers(0, 2, len(observation))


def epsilon(share: float, policy: Act) -> Act:
    """The policy, but a random push in this share of steps."""

    def act(observation: Array, generator: np.random.Generator) -> Array:
        at_random = generator.random(len(observation)) < share
        return np.where(at_random, cartpole_random(observation, generator), policy(observation, generator))

    return act


def cartpole_step(state: Array, action: Array, reality: Reality) -> tuple[Array, Array]:
    """(P, 4) next states and (P,) whether they are ends: Gymnasium's CartPole-v1, in its order of operations."""
    x, x_dot, theta, theta_dot = state.T
    length = 0.5 * reality.length
    polemass_length, total_mass, tau = 0.1 * length, 1.1, 0.02
    force = np.where(action == 1, 10.0, -10.0) * reality.force
    cosine, sine = np.cos(theta), np.sin(theta)
    temp = (force + polemass_length * np.square(theta_dot) * sine) / total_mass
    theta_acceleration = (reality.gravity * sine - cosine * temp) / (
        length * (4.0 / 3.0 - 0.1 * np.square(cosine) / total_mass)
    )
    x_acceleration = temp - polemass_length * theta_acceleration * cosine / total_mass
    after = np.stack(
        [
            x + tau * x_dot,
            x_dot + tau * x_acceleration,
            theta + tau * theta_dot,
            theta_dot + tau * theta_acceleration,
        ],
        axis=1,
    )
    return after, (np.abs(after[:, 0]) > 2.4) | (np.abs(after[:, 2]) > reality.angle * DEGREE)


def pendulum_step(state: Array, action: Array, reality: Reality) -> tuple[Array, Array]:
    """(P, 2) next states and (P,) rewards: Gymnasium's Pendulum-v1 under gravity 10."""
    theta, theta_dot = state.T
    torque = np.clip(action, -2.0, 2.0)
    cost = ((theta + np.pi) % (2 * np.pi) - np.pi) ** 2 + 0.1 * theta_dot**2 + 0.001 * torque**2
    pull = 3.0 * torque * reality.force
    theta_dot = np.clip(theta_dot + (3 * 10.0 / 2 * np.sin(theta) + pull) * 0.05, -8.0, 8.0)
    return np.stack([theta + theta_dot * 0.05, theta_dot], axis=1), -cost


def play_cartpole(
    probes: int, policy: Act, reality: Reality, generator: np.random.Generator, start: tuple[float, ...] = (0, 0, 0, 0)
) -> Traces:
    """`probes` episodes of at most HORIZON steps, from around `start`."""
    state = generator.uniform(-0.05, 0.05, (probes, 4)) + np.array(start, dtype=float)
    pending = [generator.integers(0, 2, probes) for _ in range(reality.delay)]
    observation = np.zeros((probes, HORIZON + 1, 4))
    taken = np.zeros((probes, HORIZON), dtype=np.int64)
    reward, terminated, valid = np.zeros((probes, HORIZON)), *(np.zeros((probes, HORIZON), dtype=bool) for _ in "tv")
    running = np.ones(probes, dtype=bool)
    observation[:, 0] = _seen(state, reality)
    for step in range(HORIZON):
        action = policy(observation[:, step], generator)
        pending.append(action)
        works = pending.pop(0)
        flipped = generator.random(probes) < reality.flip
        works = np.where(flipped, generator.integers(0, 2, probes), works)
        state, ended = cartpole_step(state, works, reality)
        state[:, [1, 3]] += reality.noise * generator.normal(size=(probes, 2))
        observation[:, step + 1] = _seen(state, reality)
        taken[:, step], valid[:, step], terminated[:, step] = action, running, running & ended
        reward[:, step] = 1.0 + reality.reward_shift + reality.reward_noise * generator.normal(size=probes)
        running &= ~ended
    return _traces(observation, np.eye(2)[taken], reward, terminated, valid)


def play_pendulum(probes: int, reality: Reality, generator: np.random.Generator) -> Traces:
    """`probes` episodes of random torques that are held for some steps each."""
    state = generator.uniform([-np.pi, -1.0], [np.pi, 1.0], (probes, 2))
    observation = np.zeros((probes, HORIZON + 1, 3))
    action, reward = np.zeros((probes, HORIZON, 1)), np.zeros((probes, HORIZON))
    observation[:, 0] = _pendulum_seen(state)
    torque = generator.uniform(-2, 2, probes)
    for step in range(HORIZON):
        torque = np.where(generator.random(probes) < 0.3, generator.uniform(-2, 2, probes), torque).astype(np.float32)
        state, reward[:, step] = pendulum_step(state, torque, reality)
        reward[:, step] += reality.reward_shift
        state[:, 1] += reality.noise * generator.normal(size=probes)
        observation[:, step + 1], action[:, step, 0] = _pendulum_seen(state), torque
    never = np.zeros((probes, HORIZON), dtype=bool)
    return _traces(observation, action, reward, never, ~never)


def _seen(state: Array, reality: Reality) -> Array:
    if reality.rounding:
        state = np.round(state / reality.rounding) * reality.rounding
    return state.astype(np.float32).astype(np.float64)


def _pendulum_seen(state: Array) -> Array:
    seen = np.stack([np.cos(state[:, 0]), np.sin(state[:, 0]), state[:, 1]], axis=1)
    return seen.astype(np.float32).astype(np.float64)


def _traces(observation: Array, action: Array, reward: Array, terminated: Array, valid: Array) -> Traces:
    return Traces(
        observation=observation,
        action=action,
        reward=reward,
        terminated=terminated,
        truncated=np.zeros_like(valid),
        valid=valid,
        unit=np.arange(len(valid)),
    )
