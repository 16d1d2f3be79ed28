"""The lower half of an evaluation's page: every metric by rung of the evidence ladder, and how it was measured."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

LADDER = {
    "L0": "what it looks like",
    "L1": "what it looks like over time",
    "L2": "what is consistent in it",
    "L3": "whether its distributions and uncertainties are right",
    "L4": "whether it answers to actions as reality does",
    "L5": "whether decisions made by it are right",
    "L6": "whether training in it helps",
    "L7": "whether it withstands an optimiser",
}


def details(found: Mapping[str, Any]) -> str:
    """All registered metrics, the strongest evidence first."""
    head = "".join(
        f"<th>{name}</th>"
        for name in ("metric", "value", "95 % interval", "perfect", "reality against itself", "units", "convention")
    )
    rows = []
    for level in sorted({row["level"] for row in found["details"]}, reverse=True):
        rows.append(f'<tr class="level"><td colspan="7">{level}: {LADDER[level]}</td></tr>')
        rows += [_row(row) for row in found["details"] if row["level"] == level]
    words = (
        "The ladder of evidence: what stands low (pictures, distributions) describes the world and cannot vouch "
        "for decisions made "
        "in it; what stands high can."
    )
    table = f'<table class="details"><tr>{head}</tr>{"".join(rows)}</table>'
    return f'<h2>Every number</h2><p>{words}</p><div class="card">{table}</div>'


def _row(row: Mapping[str, Any]) -> str:
    floor = f"{row['floor']:.3g}" if row["floor"] is not None else ""
    if row["floor_kind"] == "climatology":
        floor = '<span class="small">divided by it</span>'
    perfect = "" if row["perfect"] is None else f"{row['perfect']:g}"
    plural = {"policy": "policies"}.get(row["unit"], f"{row['unit']}s")
    units = f"{row['units']} {plural}" if row["units"] else ""
    cells = (f"<code>{row['metric']}</code>", row["shown"], row["interval_shown"], perfect, floor, units)
    told = f'<td><span class="small">{html.escape(row["convention"])}</span></td>'
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}{told}</tr>"


def provenance(found: Mapping[str, Any]) -> str:
    """How it was measured, and what was not."""
    how, drift = found["how"], found["drift"]
    seen = (
        ", ".join(f"{kind} 10^{value:.1f}" for kind, value in drift["log10_evidence"].items())
        + f" over {drift['probes']} recorded episodes; alarms at 10^{drift['log10_threshold']:.1f}"
        if drift["known"]
        else f"not known: {drift['why_unknown']}"
    )
    missing = {name: why for name, why in how["missing"].items() if name != "support_reference"}
    rows = [
        ("Real play", f"{how['real_episodes']} episodes of the suite, {how['real_steps']:,} real steps in all; "
         f"sha256 <code>{how['data_hash'][:16]}</code>"),
        ("Imagined play", f"{how['imagined_steps']:,} steps through the service, as any agent takes them"),
        ("Error", html.escape(how["convention"])),
        ("A success", f"a stretch whose rewards sum to at least {how['success_bar']:.4g}, the middle of what real ones "
         "gave; one judge for both sides"),
        ("Known", f"the 0.99 quantile of uncertainty on {html.escape(how['support_reference'])}"),
        ("Drift", html.escape(seen)),
        ("Not measured", "<br>".join(html.escape(f"{name}: {why}") for name, why in missing.items()) or "nothing"),
        ("Seed and time", f"seed {how['seed']}, {how['seconds']:.0f} s, simservice {html.escape(how['code_version'])}"),
    ]  # fmt: skip
    cells = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows)
    return (
        f'<h2>How it was measured</h2><div class="card"><table class="plain">{cells}</table></div>'
        "<footer>All figures of this page are in evaluation.json beside it. Intervals come from resampling whole "
        "episodes, and of ranks from the number of independent policies.</footer>"
    )
