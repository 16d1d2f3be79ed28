"""Whole real episodes to and from their message; what is read is checked to be one, and errors name the field."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import gymnasium as gym
import numpy as np

from simservice.errors import InvalidInput
from simservice.protocol.ragged import is_ragged
from simservice.protocol.tensors import decode_leaves, encode_leaves
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Array, Episode, leaves_of

MOST_EPISODES = 64  # of one request
MOST_STEPS = 100_000
MOST_BYTES = 4 * 2**20
WORD_CHARACTERS = 64
ID_BYTES = (16, 64)


def episode_id(episode: Episode) -> bytes:
    """A digest of all that was seen, done and got: reporting an episode twice is reporting it once."""
    digest = hashlib.sha256(f"{episode.policy} {episode.terminated} {episode.truncated}".encode())
    for path, array in sorted({**episode.observation, **episode.action, "reward": episode.reward}.items()):
        digest.update(f"{path} {array.dtype.str} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def encode_episode(
    episode: Episode, observation_space: gym.Space[Any], action_space: gym.Space[Any], environment_version: str = ""
) -> pb.RealEpisode:
    """The message; InvalidInput names the leaf that does not fit its space."""
    steps = len(episode)
    return pb.RealEpisode(
        id=episode_id(episode),
        steps=steps,
        observation=encode_leaves(leaves_of(observation_space, "observation"), episode.observation, (steps + 1,)),
        action=encode_leaves(leaves_of(action_space, "action"), episode.action, (steps,)),
        rewards=np.asarray(episode.reward, dtype="<f8").tobytes(),
        terminated=episode.terminated,
        truncated=episode.truncated,
        policy=episode.policy,
        environment_version=environment_version,
    )


def decode_episode(
    message: pb.RealEpisode, observation_space: gym.Space[Any], action_space: gym.Space[Any], field: str = "episode"
) -> Episode:
    """The episode, everything in it checked; InvalidInput names the field below `field`."""
    if not ID_BYTES[0] <= len(message.id) <= ID_BYTES[1]:
        raise InvalidInput(f"{field}.id", f"has {len(message.id)} bytes; take 16 to 64, drawn at random or a digest")
    if not 1 <= message.steps <= MOST_STEPS:
        raise InvalidInput(f"{field}.steps", f"is {message.steps}; an episode has 1 to {MOST_STEPS:,} steps")
    if (size := message.ByteSize()) > MOST_BYTES:
        raise InvalidInput(field, f"has {size:,} bytes; an episode of at most {MOST_BYTES:,} is taken")
    if not (message.terminated or message.truncated):
        problem = "is false as truncated is: the episode has not ended; report it whole, once it has"
        raise InvalidInput(f"{field}.terminated", problem)
    for name in ("policy", "environment_version"):
        word = getattr(message, name)
        if len(word) > WORD_CHARACTERS or not word.isprintable():
            raise InvalidInput(f"{field}.{name}", f"must be at most {WORD_CHARACTERS} printable characters")
    for name, space in (("observation", observation_space), ("action", action_space)):
        if is_ragged(space):
            raise InvalidInput(f"{field}.{name}", "is of a space without a fixed shape; reports of such are not taken")
    steps = message.steps
    return Episode(
        observation=_leaves(observation_space, "observation", message.observation, steps + 1, field),
        action=_leaves(action_space, "action", message.action, steps, field),
        reward=_rewards(message.rewards, steps, f"{field}.rewards"),
        terminated=message.terminated,
        truncated=message.truncated,
        policy=message.policy,
    )


def _leaves(space: gym.Space[Any], name: str, values: pb.Values, rows: int, field: str) -> dict[str, Array]:
    found = decode_leaves(leaves_of(space, f"{field}.{name}"), values, (rows,))
    return {path.removeprefix(f"{field}."): array for path, array in found.items()}


def _rewards(raw: bytes, steps: int, field: str) -> Array:
    if len(raw) != 8 * steps:
        raise InvalidInput(field, f"has {len(raw)} bytes; {steps} rewards as float64 have {8 * steps}")
    rewards = np.frombuffer(raw, "<f8").astype(np.float64)
    if not math.isfinite(float(np.abs(rewards).sum())):
        step = int(np.argmin(np.isfinite(rewards)))
        raise InvalidInput(field, f"holds {rewards[step]} at step {step}; only finite numbers are taken")
    return rewards
