"""Every acceptance line about faults that the test suite is too short for: tries them, prints one table.

    make faults                                             all of them
    python tests/faults/acceptance.py --only kills,store    some; --list names them
    python tests/faults/acceptance.py --short               fewer of everything, the same bars

Writes runs/faults/summary.json as it goes; ends with 1 where a line falls short.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
for place in (TESTS.parent / "benchmarks", TESTS, TESTS / "faults"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

import drops  # noqa: E402
import foreign  # noqa: E402
import forks  # noqa: E402
import fuzz  # noqa: E402
import kills  # noqa: E402
import overhead  # noqa: E402
import overload  # noqa: E402
import pictures  # noqa: E402
import schedules  # noqa: E402
import soak  # noqa: E402
import terminate  # noqa: E402
import training  # noqa: E402
from line import Options, Seen  # noqa: E402
from rich.table import Table  # noqa: E402
from stage import FAMILIES, Stage  # noqa: E402

from simservice.cli.screen import console, shares  # noqa: E402

LINES = (
    *kills.LINES,
    *terminate.LINES,
    *training.LINES,
    *pictures.LINES,
    *drops.LINES,
    *forks.LINES,
    *schedules.LINES,
    *overhead.LINES,
    *overload.LINES,
    *fuzz.LINES,
    *foreign.LINES,
    *soak.LINES,
)


def main(words=None, lines=LINES) -> int:
    """Tries the chosen lines; 1 when one fell short."""
    chosen, options, out = _arguments(words, lines)
    found = []
    with Stage() as stage:
        for line in chosen:
            found.append(tried(line, stage, options))
            show(found[-1:])
            write(found, options, out)
    if len(found) > 1:
        console().rule()
        show(found)
    short = [result["line"] for result in found if not result["held"]]
    lines = f"{len(found)} lines in {sum(result['seconds'] for result in found):.0f} s"
    console().print(f"{lines}; fell short: {', '.join(short)}" if short else f"{lines}; all held", highlight=False)
    console().print(f"written to {out}", style="dim", highlight=False)
    return 1 if short else 0


def prepare_process():
    """What holds for this whole process and for those it starts."""
    os.environ["SIMSERVICE_EXTRA_FAMILIES"] = FAMILIES
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    logging.getLogger("simservice").setLevel(logging.ERROR)  # what fails on purpose warns


def tried(line, stage, options):
    """The line's result: a failure on the way is one of its rows."""
    began, rows = time.monotonic(), []
    with shares() as told:
        told(f"{line.name}: {line.title}", 0.0)
        try:
            for seen in line.work(stage, options, lambda words, share: told(f"{line.name}: {words}", share)):
                rows.append(seen)
        except Exception as error:  # a line that cannot be tried has not held
            traceback.print_exc()
            rows.append(Seen("came to its end", "yes", f"{type(error).__name__}: {error}"[:200], False))
    seconds = round(time.monotonic() - began, 1)
    held = bool(rows) and all(row.held for row in rows)
    return {"line": line.name, "title": line.title, "held": held, "seconds": seconds, "rows": [asdict(r) for r in rows]}


def show(found):
    """The table of these results."""
    table = Table("line", "what", "bar", "seen", "", title=None, expand=False)
    for result in found:
        table.add_section()
        table.add_row(result["line"], f"[bold]{result['title']}[/bold]", "", f"{result['seconds']:.0f} s", "")
        for row in result["rows"]:
            mark = "[green]held[/green]" if row["held"] else "[bold red]short[/bold red]"
            table.add_row("", row["what"], row["bar"], row["seen"], mark)
    console().print(table)


def write(found, options, out):
    """What was seen up to now, as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    held = all(result["held"] for result in found)
    out.write_text(json.dumps({"held": held, "options": asdict(options), "lines": found}, indent=2), encoding="utf-8")


def _arguments(words, lines):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of lines, with commas between them")
    parser.add_argument("--list", action="store_true", help="the lines' names, and nothing else")
    parser.add_argument("--short", action="store_true", help="fewer kills, drops and messages; a minute of soak")
    parser.add_argument("--soak-minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/faults/summary.json"))
    words = parser.parse_args(words)
    names = [line.name for line in lines]
    if words.list:
        for line in lines:
            console().print(f"{line.name:12} {line.title}", highlight=False)
        sys.exit(0)
    wanted = words.only.split(",") if words.only else names
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"there is no line {', '.join(unknown)}; there are: {', '.join(names)}")
    options = Options(seed=words.seed, short=words.short, soak_minutes=1.0 if words.short else words.soak_minutes)
    return [line for line in lines if line.name in wanted], options, words.out


if __name__ == "__main__":
    prepare_process()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that services are ended
    sys.exit(main())
