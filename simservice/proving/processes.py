"""Starts the sealed processes of a proof, waits for them, and leaves none behind."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simservice.errors import InternalError
from simservice.proving.agent import AgentConfig

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Errand:
    """One agent to train: in a folder's world, or in a served one; its weights go to out.safetensors."""

    folder: Path
    seed: int
    out: Path
    address: str | None = None  # through the client, if the world is served
    thresholded: bool = False  # ends are decided, not drawn; not through the client

    def job(self) -> dict[str, Any]:
        """What the agent's process is told: an address and a name, or a folder."""
        where = {"folder": str(self.folder)}
        if self.address is not None:
            where = {"address": self.address, "world": self.folder.name}
        return {**where, "seed": self.seed, "out": str(self.out), "thresholded": self.thresholded}


@contextmanager
def served(folder: Path, env_id: str, scratch: Path, *, sealed: bool = True) -> Iterator[str]:
    """The address of a process that serves the world, from which reality is sealed off."""
    job = scratch / "server.json"
    job.write_text(json.dumps({"world_folder": str(folder), "env_id": env_id, "sealed": sealed}))
    log = scratch / "server.log"
    with log.open("wb") as errors:
        process = _start("server", job, stdout=subprocess.PIPE, stderr=errors)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise InternalError(f"the world's server ended: {_last_words(log)}")
            address: str = json.loads(line)["address"]
            yield address
        finally:
            _end(process)


def train_agents(
    errands: Sequence[Errand], config: AgentConfig, env_id: str, *, sealed: bool = True
) -> list[dict[str, Any]]:
    """Trains agents one after another in one process; what each showed (see agent_process)."""
    first = errands[0].out
    first.parent.mkdir(parents=True, exist_ok=True)
    job = {
        "agents": [errand.job() for errand in errands],
        "config": dataclasses.asdict(config),
        "env_id": env_id,
        "sealed": sealed,
        "client_only": all(errand.address is not None for errand in errands),
    }
    file, log = first.with_suffix(".job.json"), first.with_suffix(".log")
    file.write_text(json.dumps(job, indent=1))
    with log.open("wb") as said:
        process = _start("agent", file, stdout=said, stderr=said)
        try:
            code = process.wait()
        finally:
            _end(process)
    if code:
        raise InternalError(f"the agent's process ended (exit code {code}): {_last_words(log)}")
    return [json.loads(Path(f"{errand.out}.json").read_text()) for errand in errands]


def _start(part: str, job: Path, **streams: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, "-m", "simservice.proving.sealed", part, str(job)], env=environment, **streams
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    for last_word in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        process.send_signal(last_word)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            continue
    if process.stdout is not None:
        process.stdout.close()


def _last_words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-12:])
