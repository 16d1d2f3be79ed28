"""Options that several verbs share, and the policies they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from simservice.errors import ConfigError

Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
Root = Annotated[
    Path | None, typer.Option(help="Folder of the datasets (default: MINARI_DATASETS_PATH or ~/.minari/datasets)")
]
Address = Annotated[str, typer.Option(help="host:port of the service.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change an attribute of the real environment, e.g. gravity=12."),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="NAME=VALUE", help="Argument of the environment, as gym.make takes it."),
]


def load_policy(path: str | Path, seed: int, *, greedy: bool) -> Any:
    """The policy in a file as a callable from a batch of observations to a batch of actions."""
    from simservice.client.policy import load_policy as load

    loaded = load(path)
    return loaded.greedy() if greedy else loaded.sampled(seed)


def pick_device(device: str) -> str:
    """cpu or cuda; `auto` is cuda where there is one."""
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device is auto, cpu or cuda, found {device!r}", key="device")
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda was asked for, but no CUDA device can be used here", key="device")
    return device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
