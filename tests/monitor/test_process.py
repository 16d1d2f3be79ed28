"""The monitor as a process: it can be stopped, killed or started twice, and no step of anybody's knows of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from toy import Toy, ToyConfig, toy_spec
from toy_registered import MODULE_ID

from simservice.client.session import RemoteSession
from simservice.errors import ConfigError
from simservice.monitor.process import Monitor, MonitorConfig
from simservice.serving.local import LocalConfig, LocalServer
from simservice.serving.monitor_child import MonitorChild
from simservice.serving.tenants import hash_line, new_token
from simservice.types import Provenance
from simservice.worlds import checkpoint

QUICK = ("--every", "0.05", "--reference-probes", "100", "--calibration-probes", "120", "--fidelity-every", "0")
DEADLINE_S = 240.0  # monitors yield to everything else on the machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A toy world that says what it was learned from."""
    path = tmp_path_factory.mktemp("worlds") / "toy"
    checkpoint.save(Toy(toy_spec(name="toy"), ToyConfig()), path, provenance=Provenance(env_id=MODULE_ID))
    return path


@pytest.fixture(scope="module")
def server(folder):
    with LocalServer([folder], store_url="memory:", config=LocalConfig(grace_s=0.1)) as running:
        yield running


@contextlib.contextmanager
def monitoring(address: str, kept) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`simservice monitor` as a user starts it, and the URL of its page."""
    command = [sys.executable, "-m", "simservice", "monitor", "--address", address, "--folder", str(kept), *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        [url] = re.findall(r"http://\S+/metrics", line)
        yield process, url
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(30)
        process.stdout.close()


def page_of(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def until(condition, what: str) -> None:
    """Waits for an event of another process."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {DEADLINE_S:g} s"
        time.sleep(0.05)


def probes_on(page: str) -> float:
    found = re.search(r'simservice_drift_probes_total\{source="probe",world="toy"\} (\S+)', page)
    return float(found[1]) if found else 0.0


def trajectory(session: RemoteSession, steps: int) -> list[np.ndarray]:
    rows = [session.reset(seeds=np.arange(4, dtype=np.int64)).observation["observation"]]
    rows += [session.step({"action": (np.arange(4) + step) % 3}).observation["observation"] for step in range(steps)]
    return rows


def test_a_stopped_killed_or_dead_monitor_leaves_steps_untouched_and_goes_on_where_it_was(server, tmp_path):
    session = RemoteSession(server.address, "toy", num_envs=4)
    expected = trajectory(session, 100)
    with monitoring(server.address, tmp_path) as (process, url):
        until(lambda: probes_on(page_of(url)) >= 3, "three probes")
        process.send_signal(signal.SIGSTOP)
        for found, wanted in zip(trajectory(session, 100), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
        process.send_signal(signal.SIGCONT)
        before = probes_on(page_of(url))
        until(lambda: probes_on(page_of(url)) > before, "a probe after it went on")
        process.kill()
        process.wait()
        for found, wanted in zip(trajectory(session, 100), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
        last = before
    with monitoring(server.address, tmp_path) as (_, url):
        until(lambda: probes_on(page_of(url)) > last, "a probe after a new start")
        page = page_of(url)
        assert re.search(r'simservice_drift_state\{state="(ok|suspect)",world="toy"\} 1.0', page)
        assert 'simservice_real_transitions_total{source="calibration"' in page  # spent once, and remembered
    session.close()


def test_two_monitors_do_not_share_a_folder(server, tmp_path):
    config = MonitorConfig(address=server.address, folder=tmp_path, worlds=("nobody",), look_every_s=60.0)
    first, ready = Monitor(config), threading.Event()
    thread = threading.Thread(target=first.run, args=(lambda page: ready.set(),))
    thread.start()
    assert ready.wait(30)
    try:
        with pytest.raises(ConfigError, match="another monitor"):
            Monitor(config).run()
    finally:
        first.stop()
        thread.join(30)
    assert not thread.is_alive()


def test_a_service_that_is_not_there_yet_is_waited_for_and_nothing_is_green(tmp_path):
    monitor, ready = Monitor(MonitorConfig(address="127.0.0.1:1", folder=tmp_path)), threading.Event()
    thread = threading.Thread(target=monitor.run, args=(lambda page: ready.set(),))
    thread.start()
    assert ready.wait(30)
    assert monitor.readings() == []
    monitor.stop()
    thread.join(30)


def test_the_monitor_beside_a_service_ends_with_it(server, tmp_path):
    port = 0
    with MonitorChild(server.address, ["toy"], tmp_path, port) as child:
        pid = child.pid
        os.kill(pid, 0)
        until(lambda: "watching" in child.log.read_text(), "a line in the log")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_serve_starts_a_monitor_for_a_world_whose_reality_is_known_and_gives_it_a_token(folder, tmp_path):
    tenants = tmp_path / "tenants.toml"
    tenants.write_text(f'[tenants.lab]\ntokens = ["{hash_line(new_token())}"]')
    command = [sys.executable, "-m", "simservice", "serve", str(folder), "--local", "--port", "0"]
    options = ["--monitor-folder", str(tmp_path / "kept"), "--tenants", str(tenants)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        said = ""
        while "watching toy against reality" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        url = re.findall(r"http://\S+/metrics", said)[-1]
        until(lambda: 'simservice_drift_state{state="calibrating",world="toy"}' in page_of(url), "the first series")
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
    until(lambda: not page_of(url), "the monitor's end")
    assert "Error" not in (tmp_path / "kept" / "monitor.log").read_text()
