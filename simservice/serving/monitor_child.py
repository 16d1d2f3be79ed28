"""The monitor beside a service: a process of its own that ends with it. Knows only its command line.

It comes in by the front door, as agents do, so it measures what they get. Its end, hang or crash is nobody's business
here: no step waits for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

END_TIMEOUT_S = 10.0


class MonitorChild:
    """`simservice monitor` over some worlds of the service at an address, for the `with` block."""

    def __init__(self, address: str, worlds: Sequence[str], folder: Path, metrics_port: int, token: str = "") -> None:
        self.folder = folder
        self.metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        self.log = folder / "monitor.log"
        self._command = [
            *(sys.executable, "-m", "simservice", "monitor", *worlds),
            *("--address", address, "--folder", str(folder), "--metrics-port", str(metrics_port)),
            "--until-stdin-ends",
        ]
        # One thread: what is measured beside a service must not take its cores.
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if token:
            self._environment["SIMSERVICE_TOKEN"] = token
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None, "it is not running"
        return self._process.pid

    def __enter__(self) -> MonitorChild:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        assert process is not None and process.stdin is not None
        process.stdin.close()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
