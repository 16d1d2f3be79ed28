"""What the session store's scripts are called with and what they answer. Knows no connection.

Keys, all of one session in one hash slot:

    simservice:{token}:session     hash: the record, `last` (sequence), `snapshot_sequence`, `claims`
    simservice:{token}:journal     list: payloads after the snapshot
    simservice:{token}:states      hash: `snapshot`, `replies`; of saved point N `point:N`, `restored:N` (the last
                                   request that did), `forgotten:N`; `points`, `point_bytes`
    simservice:open:KEY            the token that an open key belongs to
    simservice:{worlds}:deadlines, simservice:{worlds}:contracts; simservice:{rooms}:deadlines, …:contents
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

from simservice.errors import SequenceGap, SessionFenced, UnknownSession
from simservice.sessions.store import SessionRecord
from simservice.types import Caution

PREFIX = "simservice:"
DEADLINES, CONTRACTS = f"{PREFIX}{{worlds}}:deadlines", f"{PREFIX}{{worlds}}:contracts"

ROOMS = (f"{PREFIX}{{rooms}}:deadlines", f"{PREFIX}{{rooms}}:contents")


def lua(name: str) -> str:
    """The text of a script."""
    return files("simservice.sessions").joinpath("lua", f"{name}.lua").read_text()


@lru_cache(maxsize=4096)  # each append asks
def keys_of(token: str) -> tuple[str, str, str]:
    """The keys of a session."""
    if len(token) != 32 or not token.isalnum():
        raise UnknownSession(token)
    base = f"{PREFIX}{{{token}}}:"
    return base + "session", base + "journal", base + "states"


def open_key_of(key: bytes) -> str:
    """The key of an open key."""
    return f"{PREFIX}open:{key.hex()}"


def checked(answer: list[Any], token: str, sequence: int = 0) -> list[Any]:
    """What a script returns after its leading 1; its leading 0 becomes our error."""
    if answer[0] == 1:
        return answer[1:]
    if answer[1] == b"fenced":
        raise SessionFenced(token)
    if answer[1] == b"gap":
        raise SequenceGap(sequence, answer[2])
    raise UnknownSession(token)


def pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    """Fields and values, which come in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def to_fields(record: SessionRecord) -> list[str | int | bytes]:
    """A new session's fields and values in turn."""
    fields: dict[str, str | int | bytes] = {
        **vars(record),
        "caution": json.dumps(vars(record.caution)),
        "last": 0,
        "snapshot_sequence": 0,
    }
    return [word for pair in fields.items() for word in pair]


def from_fields(fields: dict[bytes, bytes]) -> SessionRecord:
    """The record among a session's fields."""
    return SessionRecord(
        token=fields[b"token"].decode(),
        world=fields[b"world"].decode(),
        num_envs=int(fields[b"num_envs"]),
        autoreset_mode=fields[b"autoreset_mode"].decode(),
        seeds=fields[b"seeds"],
        open_key=fields[b"open_key"],
        epoch=int(fields[b"epoch"]),
        tenant=fields.get(b"tenant", b"").decode(),
        caution=Caution(**json.loads(fields.get(b"caution", b"{}"))),
    )
