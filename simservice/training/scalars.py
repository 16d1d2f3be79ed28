"""Figures of a training over its updates, for TensorBoard. The only file that knows tensorboardX, an optional extra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from simservice.errors import ConfigError


class Scalars(Protocol):
    """Where figures go."""

    def add(self, figures: Mapping[str, float], update: int) -> None:
        """Notes the figures as they stand after so many updates."""

    def close(self) -> None:
        """Nothing comes any more."""


class Unwritten:
    """Nobody watches."""

    def add(self, figures: Mapping[str, float], update: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class TensorBoard:
    """Event files in a folder; a resumed training goes on in the same one. Raises ConfigError without tensorboardX."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter  # noqa: PLC0415  an optional extra
        except ModuleNotFoundError as error:
            raise ConfigError(
                "figures for TensorBoard need the extra: pip install 'simservice[tensorboard]'", key="tensorboard"
            ) from error
        self._writer = SummaryWriter(str(folder), flush_secs=10)

    def add(self, figures: Mapping[str, float], update: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, update)

    def close(self) -> None:
        self._writer.close()
