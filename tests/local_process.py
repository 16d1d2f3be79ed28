"""A local server in a process of its own, as a user starts it: its client shares no lock and no memory with it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

STOP_TIMEOUT_S = 60.0


class LocalProcess:
    """`simservice serve --local` with these words, for a `with` block."""

    def __init__(self, *folders: Path, **words: object) -> None:
        options = [part for name, value in words.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        self._command = [sys.executable, "-m", "simservice", "serve", *map(str, folders), "--local", *options]
        if "port" not in words:
            self._command += ["--port", "0"]
        self.address = self.metrics_url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> LocalProcess:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it serves."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            said += line
            if "Ctrl-C" in line:
                break
        served = re.search(r"at (\S+:\d+)", said)
        assert served, f"the server did not start: {said}"
        self.address = served[1]
        page = re.search(r"metrics at (\S+)", said)
        self.metrics_url = page[1] if page else ""

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal, waits; its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(STOP_TIMEOUT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return status

    def stop(self) -> None:
        """Ends it if it still runs."""
        if self._process is not None:
            self.end()

    # ---- what it uses ----------------------------------------------------------------------------------------------

    def memory_mb(self) -> float:
        """Resident memory."""
        return memory_mb(self.pid)

    def threads(self) -> int:
        """Threads of its process."""
        return int(_status(self.pid, "Threads"))

    def descriptors(self) -> int:
        """Open files and sockets."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def series(self) -> int:
        """Time series on its metrics page."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as answer:
            return sum(1 for line in answer.read().decode().splitlines() if line and not line.startswith("#"))


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(_status(pid, "VmRSS")) / 1024


def _status(pid: int, name: str) -> str:
    found = re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found, f"/proc/{pid}/status has no {name}"
    return found[1]
