"""The demo's last screen: its figures as one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show_table(console: Console, summary: Mapping[str, Any], out: Path) -> None:
    """Prints what summary.json holds, for people."""
    low, high = summary["real_return_interval"]
    base_low, base_high = summary["baseline_return_interval"]
    changed = ", ".join(f"{name} {value:g}" for name, value in summary["changed"].items())
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2))
    rows = (
        ("real return", f"[bold green]{summary['real_return_mean']:.1f}[/]", f"mean of {summary['real_episodes']} real "
         f"episodes, 95 % interval {low:.1f} to {high:.1f}, worst {summary['real_return_min']:.0f}"),
        ("real steps", f"[bold]{summary['real_steps']:,}[/]", f"of {summary['real_steps_budget']:,}, all counted"),
        ("the same PPO without a dream", f"[bold]{summary['baseline_return_mean']:.1f}[/]",
         f"after {summary['baseline_real_steps']:,} real steps, interval {base_low:.1f} to {base_high:.1f}"),
        ("  retuned for few steps", f"{summary['baseline_small_batches_return_mean']:.1f}",
         f"after {summary['baseline_small_batches_real_steps']:,} real steps, in batches of 256"),
        ("imagined steps", f"[bold]{summary['imagined_steps']:,}[/]",
         f"{summary['imagined_steps_per_s']:,.0f} a second with learning, over gRPC"),
        ("trust horizon", f"[bold]{summary['trust_horizon_steps']} steps[/]",
         f"falls to {summary['trust_horizon_steps_changed']} when reality has {changed}"),
        ("whole run", f"[bold]{summary['elapsed_s']:.0f} s[/]", f"world {summary['world']}, seed {summary['seed']}"),
    )  # fmt: skip
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table)
    console.print(f"\nreport: {out / 'report.html'}    figures: {out / 'summary.json'}    world: {out / 'world'}")
