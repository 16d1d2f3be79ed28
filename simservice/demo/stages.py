"""What the demo says on the terminal while it works: a title a stage with its time, and one moving line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn


@dataclass
class MovingLine:
    """The line under a stage's title that moves while the stage works."""

    progress: Progress
    task: TaskID
    result: str = ""  # shown beside the stage's time once it is done

    def show(self, words: str, share: float | None = None) -> None:
        """Says what goes on now; `share` of 1 that is done moves the bar."""
        if share is None:
            self.progress.update(self.task, description=words)
        else:
            self.progress.update(self.task, description=words, completed=min(1.0, share), total=1.0)


@dataclass
class Stages:
    """The stages so far, with their seconds."""

    console: Console
    began: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)  # by kind of stage, in order of appearance

    @property
    def elapsed_s(self) -> float:
        """Since the first stage."""
        return time.monotonic() - self.began

    @contextmanager
    def stage(self, title: str, kind: str) -> Iterator[MovingLine]:
        """One stage. Its time is added to that of its kind; a stage that fails shows no tick."""
        began = time.monotonic()
        columns = (
            SpinnerColumn(finished_text="•"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            line = MovingLine(progress, progress.add_task(title, total=None))
            yield line
        spent = time.monotonic() - began
        self.seconds[kind] = self.seconds.get(kind, 0.0) + spent
        clock = f"[dim]{self.elapsed_s:5.0f} s[/dim]"
        detail = f"  [dim]{line.result}[/dim]" if line.result else ""
        self.console.print(f"{clock}  [green]✓[/green] {title} [dim]({spent:.1f} s)[/dim]{detail}")
