"""Three times as many sessions as a server has lanes for: what comes of those inside, and what becomes of the others.

    python tests/faults/overload.py --seconds 10

Prints goodput alone and under overload, refusals with a time to come again, and the server's memory.
"""

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from toy import Toy, toy_spec

from simservice.client.session import RemoteSession
from simservice.errors import CapacityExhausted
from simservice.types import Provenance
from simservice.worlds import checkpoint

LANES, SESSIONS, TIMES = 8, 8, 3
LONGEST_PAUSE_S = 1.0  # the impatient come sooner than they are told


def inside(address, seconds, begin, out):
    """Steps of sessions that have room, alone and then beside those that have none."""
    sessions = [RemoteSession(address, "toy", num_envs=LANES) for _ in range(SESSIONS)]
    action = {"action": np.ones(LANES, dtype=np.int64)}
    counts, stop = [0] * SESSIONS, threading.Event()

    def play(place):
        sessions[place].reset()
        while not stop.is_set():
            sessions[place].step(action)
            counts[place] += 1

    threads = [threading.Thread(target=play, args=(place,)) for place in range(SESSIONS)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    rates = []
    for crowd in (False, True):
        if crowd:
            begin.set()
            time.sleep(1.0)
        before, began = sum(counts), time.monotonic()
        time.sleep(seconds)
        rates.append((sum(counts) - before) / (time.monotonic() - began))
    stop.set()
    for thread in threads:
        thread.join()
    out.put(rates)
    for session in sessions:
        session.close()


def outside(address, seconds, begin, out):
    """Sessions that find no room and come again, sooner than they are told."""
    begin.wait()
    refused, hinted, slowest = [0], [0], [0.0]
    end = time.monotonic() + seconds + 1.0

    def knock():
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                RemoteSession(address, "toy", num_envs=LANES, connect_timeout_s=0.9).close()
            except CapacityExhausted as error:
                refused[0] += 1
                hinted[0] += error.retry_after_s is not None
                slowest[0] = max(slowest[0], time.monotonic() - began)
                time.sleep(min(LONGEST_PAUSE_S, error.retry_after_s or LONGEST_PAUSE_S))

    threads = [threading.Thread(target=knock) for _ in range((TIMES - 1) * SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put((refused[0], hinted[0], slowest[0]))


def memory_mb(pid):
    """Resident memory of a process."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def main():
    """Serves, plays, prints."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=10.0)
    seconds = arguments.parse_args().seconds
    os.environ["SIMSERVICE_EXTRA_FAMILIES"] = "toy:Toy"
    spawn = multiprocessing.get_context("spawn")
    begin, first, second = spawn.Event(), spawn.Queue(), spawn.Queue()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Toy(toy_spec(name="toy")), Path(folder) / "toy", provenance=Provenance())
        command = ["-m", "simservice", "serve", str(Path(folder) / "toy"), "--local", "--port", "0"]
        server = subprocess.Popen(
            [sys.executable, *command, "--lanes", str(LANES * SESSIONS)], stdout=subprocess.PIPE, text=True
        )
        try:
            address = re.search(r"127\.0\.0\.1:\d+", server.stdout.readline())[0]
            crowd = [
                spawn.Process(target=work, args=(address, seconds, begin, out))
                for work, out in ((inside, first), (outside, second))
            ]
            for process in crowd:
                process.start()
            begin.wait()
            before = memory_mb(server.pid)
            alone, crowded = first.get()
            refused, hinted, slowest = second.get()
            after = memory_mb(server.pid)
            for process in crowd:
                process.join()
        finally:
            server.terminate()
            server.wait()
    print(f"goodput {alone:.0f} -> {crowded:.0f} vector steps/s ({100 * crowded / alone:.0f} %)")
    print(f"refused {refused}, with a time to come again {hinted}, slowest refusal {1000 * slowest:.0f} ms")
    print(f"server memory {before:.1f} -> {after:.1f} MB")


if __name__ == "__main__":
    main()
