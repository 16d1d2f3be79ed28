"""A contestant in a process of its own: its client's threads, locks and settings are nobody else's.

As a program: `python -m bench.player MODULE:FUNCTION ARGUMENTS`, the arguments as a JSON list. Says "ready", or what it
misses; each line with seconds on its input is answered by a round.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from importlib import import_module
from typing import Any

from bench.processes import with_our_folders
from bench.timing import Round


class NotInstalled(Exception):
    """A peer's library is not there."""


class Player:
    """The near end of one."""

    def __init__(self, place: str, arguments: tuple[Any, ...]) -> None:
        self._place = place
        words = [sys.executable, "-W", "ignore", "-m", __name__, place, json.dumps(arguments)]
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=with_our_folders(),
            start_new_session=True,  # see processes.py
        )

    def wait(self) -> None:
        """Returns when it can play; NotInstalled names what it lacks."""
        said = self._answer()
        if said.startswith("lacks "):
            raise NotInstalled(said.removeprefix("lacks "))
        if said != "ready":
            raise RuntimeError(f"{self._place} did not start; it says above why")

    def play(self, seconds: float) -> Round:
        """A round."""
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        return Round(**json.loads(self._answer()))

    def end(self) -> None:
        """Its input ends, and so does it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def players(places: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[dict[str, Player], dict[str, str]]]:
    """One for each (place, *arguments), all started at once; beside them the names of those that lack something."""
    with ExitStack() as stack:
        started = {}
        for name, (place, *arguments) in places.items():
            started[name] = Player(place, tuple(arguments))
            stack.callback(started[name].end)
        missing = {}
        for name, player in started.items():
            try:
                player.wait()
            except NotInstalled as problem:
                missing[name] = f"not installed ({problem}); make bench installs it"
        yield {name: player for name, player in started.items() if name not in missing}, missing


def main() -> None:
    """Plays on command."""
    module, _, function = sys.argv[1].partition(":")
    with ExitStack() as stack:
        try:
            playing = stack.enter_context(getattr(import_module(module), function)(*json.loads(sys.argv[2])))
        except ImportError as error:
            print(f"lacks {error.name}", flush=True)
            return
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(asdict(playing.play(float(line)))), flush=True)


if __name__ == "__main__":
    main()
