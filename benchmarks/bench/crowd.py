"""Many clients at once, in processes of their own: each a session with some lanes, each in a thread, stepping without
pause while it is told to.

As a program: `python -m bench.crowd ADDRESSES WORLD CLIENTS LANES`; each line with seconds on its input is answered by
how many steps its clients did meanwhile and in how many seconds. Of several addresses, with commas between, each client
has the next. Without a world (ECHO) what is there is a bare echo, and a step is a message as long as one; with SHARED
in its place a bare server of peers/raw_shared.py, and a step is a message of actions.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import numpy as np

from bench.peers.raw_echo import RawStream
from bench.processes import with_our_folders
from bench.timing import Round
from simservice.client.session import RemoteSession

ECHO = "-"
SHARED = "="
STEP_BYTES, STEPPED_BYTES = 150, 470  # of a step of 16 lanes of four numbers, and of its reply


class Crowd:
    """All of the processes."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]], lanes: int) -> None:
        self._processes, self._lanes = processes, lanes

    def play(self, seconds: float) -> Round:
        """All clients at once; percentiles are of the clients' steps."""
        for process in self._processes:
            print(seconds, file=_into(process), flush=True)
        told = [[float(word) for word in _line(process).split()] for process in self._processes]
        rate = self._lanes * sum(steps / spent for steps, spent, _, _ in told)
        steps = sum(int(each[0]) for each in told)
        return Round(float(np.median([each[2] for each in told])), max(each[3] for each in told), rate, steps)


@contextlib.contextmanager
def crowd(address: str, world: str, clients: int, lanes: int, processes: int = 2) -> Iterator[Crowd]:
    """So many clients of so many lanes each, spread over some processes."""
    shares = [len(share) for share in np.array_split(np.arange(clients), min(clients, processes))]
    with contextlib.ExitStack() as stack:
        started = []
        for share, places in zip(shares, _dealt(address.split(","), shares), strict=True):
            words = [sys.executable, "-m", __name__, places, world, str(share), str(lanes)]
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=with_our_folders(),
                start_new_session=True,  # see processes.py
            )
            stack.enter_context(process)
            stack.callback(_into(process).close)
            started.append(process)
        for process in started:
            if _line(process).strip() != "ready":
                raise RuntimeError(f"a crowd of {world} did not start; it says above why")
        yield Crowd(started, lanes)


def _dealt(addresses: Sequence[str], shares: Sequence[int]) -> list[str]:
    """The addresses of each process's clients: all of them where there is one, else each once."""
    if len(addresses) == 1:
        return [addresses[0]] * len(shares)
    ends = np.cumsum(shares)
    return [",".join(addresses[end - share : end]) for share, end in zip(shares, ends, strict=True)]


def _into(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


class Player:
    """One client."""

    def __init__(self, step: Callable[[], object], close: Callable[[], None]) -> None:
        self._step, self.close = step, close
        self.times: list[float] = []

    def run(self, until: float) -> None:
        """Steps until then."""
        self.times = []
        while (began := time.perf_counter()) < until:
            self._step()
            self.times.append(time.perf_counter() - began)


def player(address: str, world: str, lanes: int) -> Player:
    """A client of a world, or of a bare server."""
    if world in (ECHO, SHARED):
        stream = RawStream(address)
        request = os.urandom(STEP_BYTES) if world == ECHO else np.ones(lanes, np.int64).tobytes()
        return Player(lambda: stream.ask(request), stream.close)
    session = RemoteSession(address, world, num_envs=lanes)
    session.reset()
    action = {"action": np.ones(lanes, np.int64)}
    return Player(lambda: session.step(action), session.close)


def main() -> None:
    """Plays on command until its input ends."""
    addresses, world, clients, lanes = sys.argv[1].split(","), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    players = [player(addresses[number % len(addresses)], world, lanes) for number in range(clients)]
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        threads = [threading.Thread(target=each.run, args=(began + float(line),)) for each in players]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        spent = time.perf_counter() - began
        times = np.concatenate([each.times for each in players])
        print(len(times), spent, *np.percentile(times, [50, 99]), flush=True)
    for each in players:
        each.close()


if __name__ == "__main__":
    main()
