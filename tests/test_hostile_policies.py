"""The benchmark of hostile policies: its flood says what became of its files, whichever thread is told to end."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "hostile_policies.py"


@pytest.mark.skipif(sys.platform != "linux", reason="threads are told apart by /proc")
def test_a_flood_that_any_of_its_threads_is_told_to_end_tells_what_it_did():
    command = [sys.executable, str(BENCHMARK), "--flood", "127.0.0.1:9", "--kinds", "loop"]
    several = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}  # numpy has a thread of its own then
    flood = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=several)
    try:
        assert flood.stdout.readline() == "begun\n"
        others = sorted(int(thread) for thread in os.listdir(f"/proc/{flood.pid}/task") if int(thread) != flood.pid)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.tgkill(flood.pid, others[0], int(signal.SIGTERM)) == 0
        told, _ = flood.communicate(timeout=30)
    finally:
        flood.kill()
        flood.wait()
    assert told == "{}\n" and flood.returncode == 0
