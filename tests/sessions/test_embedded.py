import os
import selectors
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from simservice.errors import StoreUnavailable
from simservice.sessions import embedded
from simservice.sessions.embedded import EmbeddedStore, find_server, remove_leftovers, store_from_url


def ask(url: str, command: bytes) -> bytes:
    """Sends one inline command over the socket of a unix:// URL."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(unquote(urlsplit(url).path))
        client.sendall(command + b"\r\n")
        return client.recv(4096)


def until_answered(url: str, command: bytes) -> bytes:
    """What a server says that may not be up yet."""
    deadline = time.monotonic() + 20
    while True:
        try:
            answer = ask(url, command)
            if answer and not answer.startswith(b"-LOADING"):
                return answer
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.005)


def wait_for_end(pid: int) -> None:
    """Blocks until a process that is no child of ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(descriptor) as process, selectors.DefaultSelector() as selector:
        selector.register(process, selectors.EVENT_READ)
        assert selector.select(10), f"process {pid} is still there"


def test_the_server_answers_on_a_private_socket_and_no_port():
    with EmbeddedStore() as store:
        folder = Path(unquote(urlsplit(store.url).path)).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert ask(store.url, b"PING") == b"+PONG\r\n"
        assert b"\r\n0\r\n" in ask(store.url, b"CONFIG GET port")
        assert b"\r\nno\r\n" in ask(store.url, b"CONFIG GET appendfsync")
        assert b"noeviction" in ask(store.url, b"CONFIG GET maxmemory-policy")


def test_stopping_ends_the_process_and_removes_its_temporary_folder():
    store = EmbeddedStore().start()
    folder, pid = Path(unquote(urlsplit(store.url).path)).parent, store.pid
    store.stop()
    store.stop()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_data_in_a_given_folder_outlives_the_server(tmp_path):
    with EmbeddedStore(tmp_path / "data") as store:
        ask(store.url, b"SET word kept")
    with EmbeddedStore(tmp_path / "data") as store:
        assert ask(store.url, b"GET word") == b"$4\r\nkept\r\n"


def test_an_acknowledged_write_outlives_a_killed_server(tmp_path):
    with EmbeddedStore(tmp_path) as store:
        ask(store.url, b"SET word kept")
        os.kill(store.pid, signal.SIGKILL)
    with EmbeddedStore(tmp_path) as store:
        assert ask(store.url, b"GET word") == b"$4\r\nkept\r\n"


def test_a_killed_server_is_started_again_at_the_same_address_with_its_data():
    with EmbeddedStore() as store:
        for times in range(1, 4):
            ask(store.url, b"INCR count")
            os.kill(store.pid, signal.SIGKILL)
            assert until_answered(store.url, b"GET count") == b"$1\r\n%d\r\n" % times
            assert store.restarts == times
        pid = store.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_store_that_is_stopped_while_its_server_is_being_replaced_stays_ended(tmp_path):
    for _ in range(5):
        store = EmbeddedStore(tmp_path).start()
        os.kill(store.pid, signal.SIGKILL)
        store.stop()
    with EmbeddedStore(tmp_path) as store:  # its folder is free
        assert ask(store.url, b"PING") == b"+PONG\r\n"


def test_a_folder_serves_one_store_at_a_time(tmp_path):
    with EmbeddedStore(tmp_path), pytest.raises(StoreUnavailable, match="another store is running"):
        EmbeddedStore(tmp_path).start()


def test_a_path_too_long_for_a_socket_still_works(tmp_path):
    folder = tmp_path / ("long" * 30)
    with EmbeddedStore(folder) as store:
        ask(store.url, b"SET word kept")
        assert any(folder.rglob("*.aof"))


def test_the_server_ends_with_a_parent_that_is_killed_and_the_next_start_cleans_up():
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from simservice.sessions.embedded import EmbeddedStore\n"
            "store = EmbeddedStore().start(); print(store.pid, store.url, flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        pid, url = parent.stdout.readline().split()
        folder = Path(unquote(urlsplit(url).path)).parent
        assert ask(url, b"PING") == b"+PONG\r\n"
        parent.kill()
    wait_for_end(int(pid))
    remove_leftovers()
    assert not folder.exists()


def test_the_server_survives_the_thread_that_started_it():
    store = EmbeddedStore()
    starter = threading.Thread(target=store.start)
    starter.start()
    starter.join()
    try:
        assert ask(store.url, b"PING") == b"+PONG\r\n"
    finally:
        store.stop()


def test_a_running_stores_folder_is_no_leftover():
    with EmbeddedStore() as store:
        remove_leftovers()
        assert ask(store.url, b"PING") == b"+PONG\r\n"
        assert Path(unquote(urlsplit(store.url).path)).exists()


def test_without_any_server_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StoreUnavailable, match=r"simservice\[embedded\]") as caught:
        find_server()
    assert "REDIS_URL" in str(caught.value)


def fake_server(folder: Path, text: str) -> None:
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("echo Redis server v=5.0.14", "older than 6.2"), ("echo something else", "does not tell its version")],
)
def test_an_unfit_server_on_the_path_is_named_with_its_problem(monkeypatch, tmp_path, text, problem):
    fake_server(tmp_path, text)
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    with pytest.raises(StoreUnavailable, match=problem):
        find_server()


def test_a_server_that_ends_at_once_is_reported_with_its_last_words(monkeypatch, tmp_path):
    fake_server(tmp_path, '[ "$1" = --version ] && echo v=7.2 || echo no memory for this')
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(StoreUnavailable, match="no memory for this"):
        EmbeddedStore().start()


def test_a_given_url_and_then_redis_url_go_before_an_embedded_server(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:6379/0")
    with store_from_url("redis://given:6379/0") as url:
        assert url == "redis://given:6379/0"
    with store_from_url() as url:
        assert url == "redis://elsewhere:6379/0"
    monkeypatch.delenv("REDIS_URL")
    with store_from_url() as url:
        assert ask(url, b"PING") == b"+PONG\r\n"


def test_the_deployed_configuration_starts_and_agrees_with_the_embedded_one(tmp_path):
    configuration = Path(__file__).parents[2] / "deploy" / "redis.conf"
    words = [str(find_server()), str(configuration), "--port", "0", "--unixsocket", str(tmp_path / "s")]
    with subprocess.Popen([*words, "--dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert any("Ready to accept connections" in line for line in server.stdout)
            with EmbeddedStore() as store:
                for name in (b"appendonly", b"appendfsync", b"save", b"maxmemory-policy"):
                    asked = b"CONFIG GET " + name
                    assert ask(f"unix://{tmp_path}/s", asked) == ask(store.url, asked)
        finally:
            server.terminate()
