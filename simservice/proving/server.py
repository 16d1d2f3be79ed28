"""The process that serves a world to be proven; see sealed.py. Says its address on standard output, ends by SIGTERM."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from simservice.serving.local import LocalConfig, LocalService, serve_local


def main(job: dict[str, Any]) -> None:
    """Serves the world folder job["world_folder"] on a free local port."""
    torch.set_num_threads(1)
    serve_local([job["world_folder"]], LocalConfig(host="127.0.0.1", port=0), ready=_tell)


def _tell(service: LocalService) -> None:
    sys.stdout.write(json.dumps({"address": service.address}) + "\n")
    sys.stdout.flush()
