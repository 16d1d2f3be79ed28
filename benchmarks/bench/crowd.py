"""Many clients at once, in processes of their own: each a session with some lanes, each in a thread, stepping without
pause while it is told to.

As a program: `python -m bench.crowd ADDRESS WORLD CLIENTS LANES`; each line with seconds on its input is answered by
how many steps its clients did meanwhile and in how many seconds.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from bench.processes import with_our_folders
from bench.timing import Round
from simservice.client.session import RemoteSession


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
    shares = [len(share) for share in np.array_split(np.arange(clients), processes)]
    with contextlib.ExitStack() as stack:
        started = []
        for share in shares:
            words = [sys.executable, "-m", __name__, address, world, str(share), str(lanes)]
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


def _into(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


class Player:
    """One client."""

    def __init__(self, address: str, world: str, lanes: int) -> None:
        self.session = RemoteSession(address, world, num_envs=lanes)
        self.session.reset()
        self.times: list[float] = []
        self._action = {"action": np.ones(lanes, np.int64)}

    def run(self, until: float) -> None:
        """Steps until then."""
        self.times = []
        while (began := time.perf_counter()) < until:
            self.session.step(self._action)
            self.times.append(time.perf_counter() - began)


def main() -> None:
    """Plays on command until its input ends."""
    address, world, clients, lanes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    players = [Player(address, world, lanes) for _ in range(clients)]
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        threads = [threading.Thread(target=player.run, args=(began + float(line),)) for player in players]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        spent = time.perf_counter() - began
        times = np.concatenate([player.times for player in players])
        print(len(times), spent, *np.percentile(times, [50, 99]), flush=True)
    for player in players:
        player.session.close()


if __name__ == "__main__":
    main()
