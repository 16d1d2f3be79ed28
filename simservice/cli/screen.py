"""What the verbs show: results on stdout, progress and errors on stderr. Knows no work."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn


def figure(value: float) -> str:
    """Three decimals, or that nobody knows."""
    return "unknown" if value != value else f"{value:.3f}"


def console(*, error: bool = False) -> Console:
    """Where people read: stdout, or stderr for errors and what moves."""
    from rich.console import Console

    return Console(stderr=error, soft_wrap=True)


def complain(message: str) -> None:
    """One red line on stderr. Works without rich, which may be what is missing."""
    red, plain = ("\033[1;31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}error:{plain} {message}", file=sys.stderr)


def next_step(command: str) -> None:
    """What one would do now."""
    console().print(f"next: {command}", style="dim", highlight=False, markup=False)


@contextlib.contextmanager
def bar(words: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; what is yielded moves it on."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _moving(*columns) as progress:
        task = progress.add_task(words, total=total)
        yield lambda count: progress.advance(task, count)


@contextlib.contextmanager
def shares() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr; what is yielded sets its words and the share of 1 that is done."""
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with _moving(*columns) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda words, share: progress.update(task, description=words, completed=share)


@contextlib.contextmanager
def spinner() -> Iterator[Callable[[str], None]]:
    """A moving line on stderr; what is yielded changes its words."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with _moving(*columns) as progress:
        task = progress.add_task("", total=None)
        yield lambda words: progress.update(task, description=words)


def _moving(*columns: ProgressColumn) -> Progress:
    """Progress that is gone when it is done, and is not written into files."""
    from rich.progress import Progress

    screen = console(error=True)
    return Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
