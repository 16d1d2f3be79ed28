"""Servers of the peers, each in a process of its own that ends with the block."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent
TESTS = BENCHMARKS.parent / "tests"
STOP_TIMEOUT_S = 10.0


def with_our_folders() -> dict[str, str]:
    """The environment in which a process finds what stands here, with one thread for each library.

    gRPC's settings are left out: a peer has it as it comes, and the service's own processes choose for themselves.
    """
    path = os.pathsep.join([str(BENCHMARKS), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    ours = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    return {**ours, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@contextlib.contextmanager
def served_by(module: str, *words: object) -> Iterator[str]:
    """A module of this package as a server; yields the address that it prints when it listens."""
    command = [sys.executable, "-m", module, *map(str, words)]
    # A session of its own, as the service's processes have: Linux shares a busy machine out among sessions first.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=with_our_folders(), start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"{module} ended before it listened; it says above why")
            yield address
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
