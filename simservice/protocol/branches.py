"""Forks to and from their messages: which lanes, how many copies, whose luck."""

from __future__ import annotations

import secrets

import numpy as np

from simservice.errors import InvalidInput
from simservice.protocol.messages import decode_seeds
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Array

LUCKS = {"same": pb.LUCK_SAME, "fresh": pb.LUCK_FRESH}


def encode_fork(lanes: Array | None, copies: int, luck: str, seeds: Array | None) -> pb.Fork:
    """A fork with a key of its own; lanes None: all. Values are checked by the receiver."""
    if luck not in LUCKS:
        raise InvalidInput("luck", f"{luck!r} is none; there are: {', '.join(LUCKS)}")
    places = [] if lanes is None else np.asarray(lanes).tolist()
    for field_name, numbers in (("lanes", places), ("copies", [copies])):
        if not all(isinstance(number, int) and 0 <= number < 2**32 for number in numbers):
            raise InvalidInput(field_name, f"{numbers} are no counts")
    if lanes is not None and not places:
        raise InvalidInput("lanes", "names no lane")
    return pb.Fork(
        lanes=places,
        copies=copies,
        luck=LUCKS[luck],
        seeds=b"" if seeds is None else np.asarray(seeds).astype("<i8").tobytes(),
        fork_key=secrets.token_bytes(16),
    )


def decode_fork(message: pb.Fork) -> tuple[Array | None, bool, Array | None]:
    """Lanes (None: all), whether luck is fresh, and seeds (None: none were given)."""
    if message.luck not in (pb.LUCK_UNSPECIFIED, *LUCKS.values()):
        raise InvalidInput("luck", f"{message.luck} is no luck")
    lanes = np.array(message.lanes, np.int64) if message.lanes else None
    seeds = decode_seeds(message.seeds, len(message.seeds) // 8) if message.seeds else None
    return lanes, message.luck == pb.LUCK_FRESH, seeds
