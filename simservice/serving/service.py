"""A world service in a process of its own, for whoever wants one for a while: tests, the demo, notebooks.

Ray allows one cluster a process, so the service gets its own; this side knows only its pipes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from simservice.errors import InternalError, SimserviceError, error_class
from simservice.serving.address import check_address
from simservice.serving.haproxy_launcher import INNER_SOCKET
from simservice.serving.settings import ServeConfig
from simservice.serving.tenants import Tenants
from simservice.serving.tls import read_tls

STOP_TIMEOUT_S = 60.0
PATHS = ("tls_cert", "tls_key", "tls_client_ca", "tenants")
LOG_LINES = 15


class RayService:
    """Serves worlds on Ray Serve until the `with` block ends; nothing it started outlives the block or this process.

    `settings` are the fields of ServeConfig; the port is a free one unless given. `environment` is added to that of
    every process of the service.
    """

    def __init__(
        self, folders: Sequence[Path | str] = (), *, environment: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        self.environment = dict(environment or {})
        self.config = ServeConfig(**{"port": 0, **settings})
        paths: dict[str, Any] = {
            name: str(Path(path).resolve()) for name in PATHS if (path := getattr(self.config, name)) is not None
        }
        self.config = replace(self.config, **paths)
        self.folders = [str(Path(folder).resolve()) for folder in folders]
        self.worlds: list[str] = []  # name@version of what was deployed at the start
        self.address = ""
        self.metrics_url: str | None = None
        self.folder: Path | None = None  # of Ray's files and logs, while the service is up
        self._process: subprocess.Popen[bytes] | None = None
        self._commands: IO[str]
        self._answers: IO[str]
        self._log: IO[bytes]

    def __enter__(self) -> RayService:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def inner_address(self) -> str:
        """Where processes of this machine come in without a certificate, once started: what HAProxy has for them."""
        assert self.folder is not None, "start() comes first"
        return f"unix:{self.folder / INNER_SOCKET}"

    @property
    def pid(self) -> int:
        """Of the process that drives the service."""
        assert self._process is not None, "start() comes first"
        return self._process.pid

    def start(self) -> None:
        """Starts the service and deploys the folders' worlds; returns when clients can play. Raises what went wrong."""
        assert self._process is None, "already started"
        check_address(self.config)  # before seconds go by
        read_tls(self.config)
        Tenants(self.config.tenants)
        read_command, write_command = os.pipe()
        read_answer, write_answer = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simservice.serving.app", str(read_command), str(write_answer)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment},
            pass_fds=(read_command, write_answer),
            start_new_session=True,  # Ctrl-C reaches the caller first, who then ends the service in order
        )
        os.close(read_command)
        os.close(write_answer)
        self._commands = os.fdopen(write_command, "w", encoding="utf-8")
        self._answers = os.fdopen(read_answer, "r", encoding="utf-8")
        try:
            answer = self._ask("start", config=asdict(self.config), folders=self.folders)
        except BaseException:
            self.stop()
            raise
        self.address, self.metrics_url, self.folder = answer["address"], answer["metrics_url"], Path(answer["folder"])
        self.worlds = answer["worlds"]

    def deploy(self, folder: Path | str, replicas: tuple[int, int] | None = None) -> str:
        """Serves the folder's world, in place of an older version of the same name; returns `name@version`.

        `replicas` (fewest, most) is for this world alone; without it the service's own count holds.
        """
        return str(self._ask("deploy", folder=str(Path(folder).resolve()), replicas=replicas)["world"])

    def remove(self, world: str) -> None:
        """Stops serving the world of this name."""
        self._ask("remove", world=world)

    def replica_pids(self, world: str | None = None) -> list[int]:
        """Process ids of the replicas that are up, of all worlds or of one."""
        return [replica["pid"] for replica in self.replicas() if world in (None, replica["world"])]

    def replicas(self) -> list[dict[str, Any]]:
        """The replicas that are up: world, replica, pid, target (host:port of its metrics)."""
        return list(self._ask("replicas")["replicas"])

    def stop(self) -> None:
        """Ends the service and waits for it. Stopping twice is no error."""
        if self._process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self._commands.close()  # the other side stops at the end of its commands, however that came about
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._answers.close()
        self._log.close()

    def wait(self) -> None:
        """Blocks while the service is up; InternalError when its process ends by itself."""
        assert self._process is not None, "start() comes first"
        self._process.wait()
        raise self._ended()

    def _ended(self) -> InternalError:
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip().splitlines()[-LOG_LINES:]
        return InternalError("the service's process ended:\n" + "\n".join(words))

    def _ask(self, call: str, **arguments: Any) -> dict[str, Any]:
        line = ""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"call": call, **arguments}), file=self._commands, flush=True)
            line = self._answers.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _raised(answer["error"])
        return answer


def _raised(error: dict[str, Any]) -> SimserviceError:
    return error_class(error["reason"]).from_wire(error["message"], error["details"])
