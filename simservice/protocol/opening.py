"""The request that begins a session, to and from its message: how many lanes, what follows an end, how cautious."""

from __future__ import annotations

import secrets

import numpy as np
from gymnasium.vector import AutoresetMode

from simservice.errors import InvalidInput
from simservice.protocol.messages import encode_mode
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Caution


def encode_open(world: str, num_envs: int, mode: AutoresetMode, caution: Caution, version: str) -> pb.Open:
    """The request that begins a session, with a key of its own."""
    if (
        isinstance(num_envs, bool) or not isinstance(num_envs, int | np.integer) or not 1 <= num_envs < 2**32
    ):  # what the wire can say; the server knows its own limit
        raise InvalidInput("num_envs", f"{num_envs!r} is no number of environments; ask for 1 or more")
    return pb.Open(
        world=world,
        num_envs=int(num_envs),
        autoreset_mode=encode_mode(mode),
        client_version=version,
        open_key=secrets.token_bytes(16),
        truncate_at_trust_horizon=caution.truncate_at_trust_horizon,
        max_uncertainty=caution.max_uncertainty,
        uncertainty_penalty=caution.uncertainty_penalty,
    )


def decode_caution(message: pb.Open) -> Caution:
    """How cautious the session asks to be; what fits its world is for others to say."""
    return Caution(
        truncate_at_trust_horizon=message.truncate_at_trust_horizon,
        max_uncertainty=message.max_uncertainty if message.HasField("max_uncertainty") else None,
        uncertainty_penalty=message.uncertainty_penalty,
    )
