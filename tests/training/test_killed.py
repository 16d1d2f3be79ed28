"""A training whose process is killed by SIGKILL goes on from its last evaluation, and gives the same world."""

import os
import signal
import subprocess
import sys
import time

from simservice.data.collect import collect
from simservice.data.minari import save_dataset
from simservice.training.state import state_file
from simservice.worlds.checkpoint import describe

UPDATES = 100


def command(tmp_path, out, *words):
    settings = ["-o", f"updates={UPDATES}", "-o", "evaluate_every=20", "-o", "members=2", "--patience", "100"]
    line = ["-m", "simservice", "train", "test/data-v0", "--root", tmp_path, "--out", tmp_path / out, "--name", "same"]
    return [sys.executable, *map(str, line), *settings, *words]


def test_a_training_ended_by_sigkill_goes_on_to_the_same_world(tmp_path):
    save_dataset(
        collect("CartPole-v1", steps=300, seed=0), "test/data-v0", env_id="CartPole-v1", root=tmp_path, real_steps=300
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run(command(tmp_path, "whole"), env=environment, check=True, capture_output=True, timeout=300)
    killed, saved = subprocess.Popen(command(tmp_path, "killed"), env=environment), state_file(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not saved.exists():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert saved.exists() and not (tmp_path / "killed").exists()
    events = tmp_path / "events"
    resumed = command(tmp_path, "killed", "--resume", "--tensorboard", str(events))
    subprocess.run(resumed, env=environment, check=True, capture_output=True, timeout=300)
    assert describe(tmp_path / "killed")[0].version == describe(tmp_path / "whole")[0].version
    assert not saved.exists()
    [file] = events.glob("events.out.tfevents.*")
    assert file.stat().st_size > 1_000  # of the updates that were left
