"""The demo's agent: a process that trains policies where it is told, and knows worlds by address and name alone.

Jobs come as JSON lines on standard input, news goes as JSON lines to standard output; the end of input ends it. It
keeps the last training's weights, so that a job may go on from them.

    {"job": "dream", "address": ..., "world": ..., "seed": 0, "go_on": false, "policy": PATH, "settings": {...}}
    {"job": "reality", "env_id": ..., "env_kwargs": {...}, "seed": 0, "policy": PATH, "settings": {...}}

    {"news": "ready"}   {"news": "progress", "steps": ..., ...}   {"news": "done", "steps": ..., ...}
    {"news": "failed", "problem": ...}
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from simservice.client.rllib import (
    PPOSettings,
    Progress,
    State,
    Trained,
    local_ray,
    real_config,
    served_config,
    train_ppo,
)
from simservice.errors import SimserviceError


def main(folder: str) -> None:
    """Works until standard input ends; `folder` takes Ray's session files."""
    news = _take_over_standard_output()
    with local_ray(folder=Path(folder)):
        _tell(news, "ready")
        state: State | None = None
        for line in sys.stdin:
            job = json.loads(line)
            try:
                trained = _train(job, state if job.get("go_on") else None, news)
            except SimserviceError as error:
                _tell(news, "failed", problem=str(error))
                continue
            trained.policy.save(job["policy"])
            state = trained.state
            _tell(news, "done", **dataclasses.asdict(trained.last))


def _train(job: dict[str, Any], start: State | None, news: TextIO) -> Trained:
    settings = PPOSettings(**job["settings"])

    def progress(made: Progress) -> None:
        _tell(news, "progress", **dataclasses.asdict(made))

    if job["job"] == "dream":
        config = served_config(job["address"], job["world"], settings, seed=job["seed"])
    else:
        config = real_config(job["env_id"], settings, seed=job["seed"], env_config=job["env_kwargs"])
    return train_ppo(config, settings, start=start, progress=progress)


def _take_over_standard_output() -> TextIO:
    """Whatever a library prints from here on goes to standard error, so the news stay readable."""
    news = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return news


def _tell(news: TextIO, kind: str, **fields: Any) -> None:
    news.write(json.dumps({"news": kind, **fields}) + "\n")
    news.flush()


if __name__ == "__main__":
    main(sys.argv[1])
