"""Three times as many sessions as a server has lanes for: what comes of those inside, and what of the others."""

import multiprocessing
import threading
import time

import numpy as np
from line import Line, at_least, at_most, exactly
from local_process import LocalProcess

from simservice.client.session import RemoteSession
from simservice.errors import CapacityExhausted

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


def overload(stage, options, told):
    seconds = 4.0 if options.short else 12.0
    spawn = multiprocessing.get_context("spawn")
    begin, first, second = spawn.Event(), spawn.Queue(), spawn.Queue()
    with LocalProcess(stage.toy, lanes=LANES * SESSIONS) as server:
        crowd = [
            spawn.Process(target=work, args=(server.address, seconds, begin, out))
            for work, out in ((inside, first), (outside, second))
        ]
        for process in crowd:
            process.start()
        told("alone", 0.1)
        begin.wait()
        before = server.memory_mb()
        told("three times the capacity", 0.5)
        alone, crowded = first.get()
        refused, hinted, slowest = second.get()
        after = server.memory_mb()
        for process in crowd:
            process.join()
    yield at_least("goodput, of that alone", 100 * crowded / alone, 90, " %")
    yield at_least("refusals", refused, 1)
    yield exactly("refusals that do not say when to come again", refused - hinted, 0)
    yield at_most("slowest refusal, its connection included", slowest, 2.0, " s")
    yield at_most("growth of the server's memory", 100 * (after / before - 1), 10, " %")


LINES = (Line("overload", "sessions for three times the lanes", overload),)
