"""Forks to and from their messages: which lanes, how many copies, whose luck."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from simservice.errors import InvalidInput
from simservice.protocol.messages import decode_seeds
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Array

LUCKS = {"same": pb.LUCK_SAME, "fresh": pb.LUCK_FRESH}


def encode_fork(
    lanes: Sequence[int] | Array | None, copies: int, luck: str, seeds: Sequence[int] | Array | None
) -> pb.Fork:
    """A fork with a key of its own; lanes None: all. Values are checked by the receiver."""
    if luck not in LUCKS:
        raise InvalidInput("luck", f"{luck!r} is none; there are: {', '.join(LUCKS)}")
    places = [] if lanes is None else as_integers("lanes", lanes)
    if lanes is not None and not places:
        raise InvalidInput("lanes", "names no lane")
    own_seeds = b"" if seeds is None else np.array(as_integers("seeds", seeds, 2**63), "<i8").tobytes()
    many = as_integers("copies", [copies])[0]
    return pb.Fork(
        lanes=places,
        copies=many,
        luck=LUCKS[luck],
        seeds=own_seeds,
        fork_key=secrets.token_bytes(16),
    )


def as_points(*points: Any) -> list[int]:
    """Those that can be a saved point's number; no others were ever given out."""
    for point in points:
        if isinstance(point, bool | np.bool_) or not isinstance(point, int | np.integer):
            raise InvalidInput("point", f"{point!r} is no point; save() gives one, an integer")
    return [int(point) for point in points if 0 <= point < 2**64]


def as_integers(field_name: str, numbers: Any, limit: int = 2**32) -> list[int]:
    """A flat list of what the wire can say; a mask of bool is no list of lanes."""
    flat = list(numbers) if np.iterable(numbers) else [numbers]
    for number in flat:
        if isinstance(number, bool | np.bool_) or not isinstance(number, int | np.integer) or not 0 <= number < limit:
            raise InvalidInput(field_name, f"{number!r} is no integer from 0 to {limit - 1}")
    return [int(number) for number in flat]


def decode_fork(message: pb.Fork) -> tuple[Array | None, bool, Array | None]:
    """Lanes (None: all), whether luck is fresh, and seeds (None: none were given)."""
    if message.luck not in (pb.LUCK_UNSPECIFIED, *LUCKS.values()):
        raise InvalidInput("luck", f"{message.luck} is no luck")
    lanes = np.array(message.lanes, np.int64) if message.lanes else None
    seeds = decode_seeds(message.seeds, len(message.seeds) // 8) if message.seeds else None
    return lanes, message.luck == pb.LUCK_FRESH, seeds
