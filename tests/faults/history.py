"""What clients asked and were answered, and the rules that every such history must keep. Knows no service.

The idea of Jepsen with a single register a session: each client writes down every request and answer, and a checker
reads all of it afterwards. A rule is a function from the entries to sentences about what broke it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

NUMBERED = ("reset", "step")  # the calls that use a sequence number


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One request, and what its client got for it. An error that says nothing was done has `answered` None."""

    session: str
    call: str  # reset, step, render, close
    sequence: int = 0
    tenant: str = ""
    asked: bytes = b""  # a digest of the request
    answered: bytes | None = None  # a digest of the reply
    began_s: float = 0.0
    ended_s: float = 0.0
    before: np.ndarray[Any, Any] | None = None  # hash of each lane's state before, as the reply or the server tells
    after: np.ndarray[Any, Any] | None = None
    promised: np.ndarray[Any, Any] | None = None  # what the world's law makes of `before` and the request
    fresh: np.ndarray[Any, Any] | None = None  # (lanes,) bool: lanes that this request started anew
    over: np.ndarray[Any, Any] | None = None  # (lanes,) bool: lanes whose episode ended with this request
    owners: frozenset[int] = frozenset()  # marks of the lanes that the reply shows


def digest(*parts: Any) -> bytes:
    """Of arrays and texts, their names and types included."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype}{part.shape}".encode())
            found.update(np.ascontiguousarray(part).tobytes())
        else:
            found.update(repr(part).encode())
    return found.digest()


def violations(entries: Iterable[Entry]) -> list[str]:
    """Every way in which the entries break a rule, as sentences; none for a history of exactly-once steps."""
    entries = list(entries)
    return [f"{entry_name(entry)}: {problem}" for rule in RULES for entry, problem in rule(entries)]


def links(entries: Iterable[Entry]) -> dict[str, list[bytes]]:
    """A hash chain a session: link n covers all requests and replies up to n.

    Two runs are the same up to the first link in which they differ.
    """
    chains: dict[str, list[bytes]] = {}
    for session, answered in acknowledged(entries).items():
        chain = [b""]
        for entry in answered:
            chain.append(digest(chain[-1], entry.sequence, entry.asked, entry.answered))
        chains[session] = chain[1:]
    return chains


def acknowledged(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """A session's numbered requests in the order in which each was first answered."""
    found: dict[str, list[Entry]] = defaultdict(list)
    seen = set()
    for entry in sorted(entries, key=lambda entry: entry.ended_s):
        if entry.call in NUMBERED and entry.answered is not None and (entry.session, entry.sequence) not in seen:
            seen.add((entry.session, entry.sequence))
            found[entry.session].append(entry)
    return found


def entry_name(entry: Entry) -> str:
    """How a sentence begins."""
    return f"session {entry.session[:8]}, {entry.call} {entry.sequence}"


Problems = Iterator[tuple[Entry, str]]


def numbers_rise_by_one(entries: list[Entry]) -> Problems:
    """Nothing acknowledged is lost or reordered."""
    for answered in acknowledged(entries).values():
        for expected, entry in enumerate(answered, start=1):
            if entry.sequence != expected:
                yield entry, f"answered where {expected} was next"
                break


def a_number_has_one_request_and_one_reply(entries: list[Entry]) -> Problems:
    """A repeat gets the first answer."""
    first: dict[tuple[str, int], Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.ended_s):
        if entry.call not in NUMBERED or entry.answered is None:
            continue
        known = first.setdefault((entry.session, entry.sequence), entry)
        if known.answered != entry.answered:
            yield entry, "a repeat got another answer than the first time"


def the_chain_of_states_is_unbroken(entries: list[Entry]) -> Problems:
    """Each request starts from the state that the one before it led to."""
    for answered in acknowledged(entries).values():
        for former, entry in itertools.pairwise(answered):
            if entry.before is None or former.after is None:
                continue
            going_on = ~_mask(entry.fresh, entry.before)
            if not np.array_equal(entry.before[going_on], former.after[going_on]):
                yield entry, "its lanes did not start where the request before had left them"
            if entry.call == "step" and not np.array_equal(~going_on, _mask(former.over, former.after)):
                yield entry, "lanes began anew that had not ended, or ended ones went on"


def a_request_has_one_effect(entries: list[Entry]) -> Problems:
    """What is done is what was asked, once."""
    for answered in acknowledged(entries).values():
        for entry in answered:
            if entry.promised is None or entry.after is None:
                continue
            going_on = ~_mask(entry.fresh, entry.after)
            if not np.array_equal(entry.promised[going_on], entry.after[going_on]):
                yield entry, "its effect is not that of its actions, done once"


def nothing_follows_a_close(entries: list[Entry]) -> Problems:
    """A closed session is closed."""
    closed = {}
    for entry in entries:
        if entry.call == "close" and entry.answered is not None:
            closed[entry.session] = min(entry.ended_s, closed.get(entry.session, entry.ended_s))
    for entry in entries:
        if entry.call != "close" and entry.answered is not None and entry.began_s > closed.get(entry.session, np.inf):
            yield entry, "answered after the session was closed"


def nobody_reads_what_is_anothers(entries: list[Entry]) -> Problems:
    """A session answers its tenant alone, and shows its own lanes alone."""
    tenants: dict[str, str] = {}
    shown: dict[int, str] = {}
    for entry in sorted(entries, key=lambda entry: entry.ended_s):
        if entry.answered is None:
            continue
        if tenants.setdefault(entry.session, entry.tenant) != entry.tenant:
            yield entry, f"tenant {entry.tenant!r} was answered about a session of {tenants[entry.session]!r}"
        for owner in entry.owners:
            if shown.setdefault(owner, entry.session) != entry.session:
                yield entry, f"shows a lane of session {shown[owner][:8]}"


RULES = (
    numbers_rise_by_one,
    a_number_has_one_request_and_one_reply,
    the_chain_of_states_is_unbroken,
    a_request_has_one_effect,
    nothing_follows_a_close,
    nobody_reads_what_is_anothers,
)


def _mask(named: np.ndarray[Any, Any] | None, lanes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The named lanes; without a name none."""
    return np.zeros(len(lanes), dtype=bool) if named is None else named
