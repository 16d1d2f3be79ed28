"""Starts the agent as a process of its own, hands it jobs and waits for its news. Knows nothing of RLlib."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from simservice.errors import InternalError, SimserviceError

News = Mapping[str, Any]
STOP_PATIENCE_S = 15.0


class AgentProcess:
    """A running agent; leaving the context ends it with everything it started.

    `scratch` must be a short path: Ray's sockets lie in it. What the agent prints goes to `log`.
    """

    def __init__(self, scratch: Path, log: Path) -> None:
        self.scratch, self.log = scratch, log
        self._process: subprocess.Popen[str] | None = None
        self._ready = False

    def start(self) -> None:
        """Starts the process and does not wait for it."""
        self._log_file: IO[bytes] = self.log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simservice.demo.agent", str(self.scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "GRPC_ENABLE_FORK_SUPPORT": "0"},
            start_new_session=True,  # Ctrl-C in the terminal reaches the demo alone, which then ends the agent
        )

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(patiently=kind is None)

    def wait_until_ready(self) -> None:
        """Returns once the agent takes jobs; it starts while others work, so this is often at once."""
        while not self._ready:
            self._ready = self._next()["news"] == "ready"

    def train(self, job: Mapping[str, Any], progress: Callable[[News], None]) -> News:
        """Hands in one job and returns its last news. Raises InternalError with the log's end when the agent dies."""
        self.wait_until_ready()
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # _next says it better
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        while True:
            news = self._next()
            if news["news"] == "done":
                return news
            if news["news"] == "failed":
                raise SimserviceError(str(news["problem"]))
            progress(news)

    def stop(self, *, patiently: bool = True) -> None:
        """Ends the agent: by closing its input, then by force. One that was never started needs no end."""
        process = self._process
        if process is None:
            return
        if not patiently:
            self._signal(signal.SIGINT)
        with contextlib.suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()
        for last_word in (signal.SIGTERM, signal.SIGKILL):
            try:
                process.wait(STOP_PATIENCE_S)
                break
            except subprocess.TimeoutExpired:
                self._signal(last_word)
        process.wait()
        self._signal(signal.SIGKILL)  # whatever of its process group is left
        assert process.stdout is not None
        process.stdout.close()
        self._log_file.close()

    def _signal(self, which: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, which)

    def _next(self) -> News:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            news: News = json.loads(line)
            return news
        code = self._process.wait()
        end = self.log.read_text(errors="replace").strip().splitlines()[-8:]
        raise InternalError("\n".join([f"the agent's process ended (exit code {code}); its last words:", *end]))
