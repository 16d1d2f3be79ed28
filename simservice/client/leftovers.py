"""Frees the lanes of environments that a script left open when it ends."""

from __future__ import annotations

import atexit
import weakref
from typing import Protocol


class Open(Protocol):
    """A session that holds lanes while it is not closed."""

    @property
    def connected(self) -> bool: ...

    def close(self) -> None: ...


open_sessions: weakref.WeakSet[Open] = weakref.WeakSet()
"""All sessions of this process that somebody still has."""


@atexit.register
def _close_all() -> None:
    for session in list(open_sessions):
        if session.connected:  # a new stream would need new threads, which Python starts no more
            session.close()
