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
    """A progress bar on stderr, or lines where stderr is no terminal; what is yielded moves it on."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _moving(*columns) as progress:
        if progress is None:
            tell, done = tenths(), 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                tell(f"{words}: {done:,} of {total:,}", done / total)

            yield advance
            return
        task = progress.add_task(words, total=total)
        yield lambda count: progress.advance(task, count)


@contextlib.contextmanager
def shares() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr, or lines where stderr is no terminal; what is yielded sets its words and the share of
    1 that is done."""
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with _moving(*columns) as progress:
        if progress is None:
            yield tenths()
            return
        task = progress.add_task("", total=1.0)
        yield lambda words, share: progress.update(task, description=words, completed=share)


@contextlib.contextmanager
def spinner() -> Iterator[Callable[[str], None]]:
    """A moving line on stderr, or a line for each new word where stderr is no terminal; what is yielded changes it."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with _moving(*columns) as progress:
        if progress is None:
            yield _line
            return
        task = progress.add_task("", total=None)
        yield lambda words: progress.update(task, description=words)


@contextlib.contextmanager
def _moving(*columns: ProgressColumn) -> Iterator[Progress | None]:
    """Progress that is gone when it is done; None where stderr is a file or a pipe, which nothing can move in."""
    from rich.progress import Progress

    screen = console(error=True)
    if not screen.is_terminal:
        yield None
        return
    with Progress(*columns, console=screen, transient=True) as progress:
        yield progress


def tenths() -> Callable[[str, float], None]:
    """Takes words and the share of 1 that is done, and prints a line on stderr for each tenth that is reached."""
    reached = 0

    def tell(words: str, share: float) -> None:
        nonlocal reached
        if int(share * 10) > reached:
            reached = int(share * 10)
            _line(f"{10 * reached:3} %  {words}")

    return tell


def _line(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
