"""How far proofs are and how long the rest will take, judged by how long parts took before and now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

Say = Callable[[str], None]

SAY_EVERY_S = 10.0


class Named(Protocol):
    """What is being made."""

    @property
    def file(self) -> Path:
        """By which it is known here."""

    @property
    def words(self) -> str:
        """Who it is."""


class Pace:
    """Told when parts begin and end; tells people. Parts are known by their files."""

    def __init__(self, expected_s: Mapping[Path, float], processes: int, say: Say) -> None:
        self._left, self._all, self._processes, self._say = dict(expected_s), len(expected_s), processes, say
        self._begun: dict[Path, float] = {}
        self._said: dict[Path, float] = {}
        self._took, self._expected = 0.0, 0.0  # of all parts that were made

    def kept(self, file: Path) -> None:
        """A part that need not be made."""
        self._left.pop(file, None)

    def made(self, file: Path) -> None:
        """A part has come to its end, or failed."""
        expected, begun = self._left.pop(file, 0.0), self._begun.pop(file, None)
        if begun is not None:
            self._took += time.monotonic() - begun
            self._expected += expected

    @contextmanager
    def making(self, file: Path) -> Iterator[None]:
        """A part is made inside."""
        self._begun[file] = time.monotonic()
        yield
        self.made(file)

    def of(self, part: Named) -> Say:
        """What a part that is made here says."""
        return lambda words: self.say(part.file, f"{part.words}: {words}")

    def say(self, file: Path, words: str) -> None:
        """Hands words on, of each part at most every SAY_EVERY_S seconds, with what is left of everything."""
        now = time.monotonic()
        self._begun.setdefault(file, now)
        if now - self._said.get(file, -SAY_EVERY_S) >= SAY_EVERY_S:
            self._said[file] = now
            self._say(f"{words} [{self._all - len(self._left)} of {self._all} parts done, {self.words()} left]")

    def words(self) -> str:
        """About 2 h 05 min."""
        minutes = round(self.left_s() / 60)
        return f"about {minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"about {max(minutes, 1)} min"

    def left_s(self) -> float:
        """Seconds until all parts are there."""
        now, slower = time.monotonic(), (self._took / self._expected if self._expected else 1.0)
        rest = {
            file: max(seconds * slower - (now - self._begun.get(file, now)), 0.0)
            for file, seconds in self._left.items()
        }
        return max(sum(rest.values()) / self._processes, max(rest.values(), default=0.0))
