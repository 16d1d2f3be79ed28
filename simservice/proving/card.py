"""What a proof leaves to readers: a model card in Markdown and JSON, and the table on one screen."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simservice import __version__
from simservice.proving.proof import Proof, as_json
from simservice.proving.recipe import Check

LICENCES = {
    "world": "Apache-2.0",
    "data": "Apache-2.0: recorded by this command in the named environment, nothing of others in it",
}

SHOWN = ("real_return", "worst_episode", "world_return", "gap", "minutes", "clock_minutes", "train_s", "agent_s")


def write_card(proof: Proof, folder: Path, pictures: Sequence[Path]) -> Path:
    """Writes card.md and card.json into the proof's folder; returns the first."""
    (folder / "card.json").write_text(json.dumps(plain({**as_json(proof), "licences": LICENCES}), indent=2) + "\n")
    path = folder / "card.md"
    path.write_text("\n".join(_lines(proof, folder, pictures)) + "\n")
    return path


def _lines(proof: Proof, folder: Path, pictures: Sequence[Path]) -> list[str]:
    recipe = proof.recipe
    lines = [
        f"# {recipe.title}",
        "",
        f"Recipe `{recipe.name}`, row {recipe.row}: family `{recipe.family}`, environment `{recipe.env_id}`"
        f"{f' {dict(recipe.env_kwargs)}' if recipe.env_kwargs else ''}, {recipe.behaviour} play.",
        f"Made by simservice {__version__}: `simservice prove {recipe.name} --seeds "
        f"{','.join(str(result.seed) for result in proof.seeds)}`, {proof.seconds / 60:.1f} minutes.",
        "",
        *(f"Licence of the {what}: {words}." for what, words in LICENCES.items()),
        "",
        f"Settings of the family: `{dict(recipe.overrides) or 'its defaults'}`.",
        *([f"Agent: `{recipe.agent}`."] if recipe.agent is not None else []),
        "",
        "## Data",
        "",
        "| seed | dataset sha256 | real steps | resets | world | agent trained |",
        "|---|---|---|---|---|---|",
    ]
    for result in proof.seeds:
        way = "through the client" if result.through_client else "in process" if recipe.agent is not None else "-"
        lines.append(
            f"| {result.seed} | `{result.dataset_hash[:16]}` | {result.real_steps} | {result.real_resets} | "
            f"`{result.folder.name}@{result.version}` | {way} |"
        )
    lines += [
        "",
        f"Budget {recipe.real_steps} real steps a world. Scores and fresh test episodes took {proof.judging_steps} "
        "real steps more, from which nothing was learned; a score's agent is always the last one.",
        "",
        "## Bars and controls",
        "",
        "| row | what | asked | seen | |",
        "|---|---|---|---|---|",
        *(f"| {c.row} | {c.what} | {c.bar} | {number(c.seen)} | {verdict(c)} |" for c in proof.checks),
    ]
    if not math.isnan(proof.chance):
        lines += ["", f"Random play's return is {number(proof.chance)}."]
    lines += ["", "## Figures", "", f"| figure | {' | '.join(f'seed {r.seed}' for r in proof.seeds)} |"]
    lines.append("|---" * (len(proof.seeds) + 1) + "|")
    names = list(dict.fromkeys(name for result in proof.seeds for name in result.figures))
    for name in sorted(names, key=lambda name: (SHOWN.index(name) if name in SHOWN else len(SHOWN), name)):
        values = " | ".join(number(result.figures.get(name, math.nan)) for result in proof.seeds)
        lines.append(f"| {name} | {values} |")
    for picture in pictures:
        lines += ["", f"![reality, dream, difference]({picture.relative_to(folder)})"]
    return lines


def number(value: float | None) -> str:
    """Four digits that count, or a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def verdict(check: Check) -> str:
    """Whether a line holds, in a word."""
    return "reported" if check.bar == "reported" else "ok" if check.met else "FALLS SHORT"


def plain(value: Any) -> Any:
    """JSON values: what is no number becomes null, what is a dataclass a dict."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)})
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
