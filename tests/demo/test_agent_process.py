"""The demo's agent: a process that takes jobs, tells how they go, and leaves nothing when it ends."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from simservice.client.policy import load_policy
from simservice.demo.agent_process import AgentProcess
from simservice.errors import InternalError, SimserviceError

SMALL = {"total_steps": 512, "num_envs": 4, "rollout_steps": 32, "epochs": 1, "minibatch_size": 64}
JOB = {"job": "reality", "env_id": "CartPole-v1", "env_kwargs": {}, "seed": 0, "settings": SMALL}


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """An agent that is interrupted in mid-training after the last test, and must leave no process and no file."""

    def interrupt(news):
        raise KeyboardInterrupt

    scratch = Path(tempfile.mkdtemp(prefix="sim-test-", dir="/tmp"))  # short: Ray's sockets lie in it
    folder = tmp_path_factory.mktemp("agent")
    with pytest.raises(KeyboardInterrupt), AgentProcess(scratch, folder / "agent.log") as process:
        process.start()
        yield process
        endless = {**SMALL, "total_steps": 10**7}
        process.train({**JOB, "policy": str(folder / "policy.npz"), "settings": endless}, interrupt)
    assert not scratch.exists()
    assert processes_naming(scratch) == []


def processes_naming(folder):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:
            continue  # it ended while we looked
        if str(folder).encode() in words and int(entry.name) != os.getpid():
            found.append(words)
    return found


def test_a_job_tells_its_progress_and_leaves_a_policy(agent, tmp_path):
    told = []
    last = agent.train({**JOB, "policy": str(tmp_path / "policy.npz")}, told.append)
    assert last["news"] == "done"
    assert [news["steps"] for news in told] == sorted(news["steps"] for news in told)
    assert told[-1]["steps"] == last["steps"] >= 512
    assert load_policy(tmp_path / "policy.npz").greedy()(np.zeros((2, 4), np.float32)).shape == (2,)


def test_a_job_that_cannot_be_done_is_told_and_the_next_one_is_taken(agent, tmp_path):
    job = {**JOB, "policy": str(tmp_path / "policy.npz")}
    with pytest.raises(SimserviceError, match="less than one batch"):
        agent.train({**job, "settings": {**SMALL, "total_steps": 10}}, print)
    agent.train(job, lambda news: None)


def test_an_agent_that_dies_is_reported_with_its_last_words(tmp_path):
    with AgentProcess(Path("/proc/cannot/be/made"), tmp_path / "agent.log") as agent:
        agent.start()
        with pytest.raises(InternalError, match="the agent's process ended"):
            agent.wait_until_ready()
