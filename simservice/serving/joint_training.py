"""Trains one world on several Ray workers, a device each: the gang's processes. Knows no world and no loss.

It stands with the surfaces because it starts processes; the room of training knows torch's process groups only.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from simservice.data.episodes import Dataset
from simservice.errors import ConfigError
from simservice.training.gang import ProcessGang
from simservice.training.trainer import TrainConfig, train_together


def train_on_workers(
    dataset: Dataset, family: str, out: str | Path, workers: int, *, config: TrainConfig | None = None
) -> dict[str, Any]:
    """The world in the folder `out`, as trained by `workers` processes; its figures, as JSON values.

    Every worker must see the folder, on one machine or a shared file system. With device "cuda" each has a GPU of its
    own. A running Ray is used, else one is started here and ended. Raises ConfigError for a batch that cannot be
    dealt out evenly, and what training raises.
    """
    config = config or TrainConfig()
    if workers < 1:
        raise ConfigError("workers must be 1 or more", key="workers")
    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        with tempfile.TemporaryDirectory(prefix="simservice-training-") as storage:
            told = {
                **{"dataset": ray.put(dataset), "family": family, "out": str(Path(out).absolute()), "config": config},
                "figures": str(Path(storage) / "figures.json"),
            }
            trainer = TorchTrainer(
                _member,
                train_loop_config=told,
                scaling_config=ScalingConfig(num_workers=workers, use_gpu=config.device.startswith("cuda")),
                run_config=RunConfig(storage_path=storage),
            )
            trainer.fit()
            figures: dict[str, Any] = json.loads(Path(told["figures"]).read_text())
    finally:
        if started:
            ray.shutdown()
    return figures


def _member(told: Mapping[str, Any]) -> None:
    """What each worker does; Ray has made the process group."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = get_device()
    config: TrainConfig = replace(told["config"], device=str(device))
    summary = train_together(ray.get(told["dataset"]), told["family"], told["out"], ProcessGang(device), config=config)
    if summary is not None:
        figures = {
            "version": summary.version,
            "updates": summary.updates,
            "seconds": summary.seconds,
            "errors": {str(k): asdict(error) for k, error in summary.evaluation.errors.items()},
        }
        Path(told["figures"]).write_text(json.dumps(figures))
