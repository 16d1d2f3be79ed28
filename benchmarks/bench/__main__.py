"""Runs the rows, tells, and ends with 1 when one is under its bar. From benchmarks/: python -m bench [--only ROWS]."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from bench import report
from bench.lines import Found, Line, Pace
from bench.model_rows import many_clients, recurrent, replicas
from bench.rollout_rows import rollouts
from bench.stage import Stage
from bench.wire_rows import frames, lanes_64, lanes_256, one_lane

ROOT = Path(__file__).resolve().parents[2]
ROWS: dict[str, Callable[[Stage, Pace], Found]] = {
    "one-lane": one_lane,
    "64-lanes": lanes_64,
    "256-lanes": lanes_256,
    "frames": frames,
    "rssm": recurrent,
    "many-clients": many_clients,
    "rollouts": rollouts,
    "replicas": replicas,
}
FULL = Pace(rounds=7, seconds=0.5)
QUICK = Pace(rounds=1, seconds=0.05, judged=False)


def main(words: Sequence[str] | None = None) -> int:
    """0 when every row that was run holds."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", default=",".join(ROWS), metavar="ROWS", help=f"of: {', '.join(ROWS)}")
    parser.add_argument(
        "--quick", action="store_true", help="one short round without Ray; nothing is judged or written"
    )
    parser.add_argument("--rounds", type=int, default=FULL.rounds, help="of each row (at least 3 to be judged)")
    parser.add_argument("--seconds", type=float, default=FULL.seconds, help="of each contestant in a round")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "summary.json")
    asked = parser.parse_args(words)
    unknown = [name for name in asked.only.split(",") if name not in ROWS]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are: {', '.join(ROWS)}")
    pace = QUICK if asked.quick else Pace(asked.rounds, asked.seconds, judged=asked.rounds >= 3)
    torch.set_num_threads(1)
    machine = report.machine(pace.rounds, pace.seconds)
    found: dict[str, Found] = {}
    with Stage(ray=not asked.quick) as stage:
        for name in asked.only.split(","):
            began = time.perf_counter()
            found[name] = tried(name, stage, pace)
            print(f"{name} ({time.perf_counter() - began:.0f} s)", flush=True)
            for one in found[name].tables:
                print(report.show_table(one), flush=True)
    lines = [line for each in found.values() for line in each.lines]
    print(report.show(lines), flush=True)
    if not asked.quick:
        report.summarise(found, machine, asked.out)
        rows = json.loads(asked.out.read_text())["rows"]
        ordered = {name: rows[name] for name in ROWS if name in rows}
        report.rewrite(ROOT / "docs" / "benchmarks.md", report.section(ordered))
    return int(any(line.verdict == "MISSED" for line in lines))


def tried(name: str, stage: Stage, pace: Pace) -> Found:
    """What a row gives; one that fails is told as missed, and keeps no other from being run."""
    try:
        return ROWS[name](stage, pace)
    except Exception as error:
        traceback.print_exc()
        return Found([Line(name, f"all of {name}", "", "", f"failed: {type(error).__name__}: {error}", "MISSED")], [])


if __name__ == "__main__":
    sys.exit(main())
