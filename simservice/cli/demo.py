"""The verb that goes the whole way once: demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simservice.cli.options import Seed


def demo(
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder of the report; replaced at the end of a run.")] = Path("runs/demo"),
    budget: Annotated[int, typer.Option(help="Most real steps to learn from.")] = 3000,
    episodes: Annotated[int, typer.Option(min=2, help="Real episodes of the final score.")] = 100,
) -> None:
    """Go the whole way once: collect, train, serve, learn in the dream, score in reality, measure, report."""
    from simservice.demo.run import DemoConfig, run_demo

    run_demo(DemoConfig(seed=seed, out=out, budget=budget, episodes=episodes))
