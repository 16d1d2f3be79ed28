"""The verb that proves worlds: the whole way of a recipe, its controls, its card; or of all recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simservice.cli.screen import console, next_step, spinner
from simservice.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simservice.proving.recipe import Check
    from simservice.proving.run import Proof

ALL = "all"


def prove(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"A recipe; {ALL} for every one, in turn.")],
    seeds: Annotated[str, typer.Option(help="Seeds, a world and an agent each: 0,1,2.")] = "0,1,2",
    out: Annotated[Path, typer.Option(help="Folder of cards, worlds and summary.json.")] = Path("runs/prove"),
    controls: Annotated[bool, typer.Option(help="Train agents in the controls, too.")] = True,
    rows: Annotated[bool, typer.Option(help="Hold the first world against the rows of every family, too.")] = True,
    control_agents: Annotated[int, typer.Option(min=1, help="Agents in each control; their median counts.")] = 3,
) -> None:
    """Prove a world: record, train, serve, train an agent inside, score it in reality, beside controls."""
    from simservice.proving.card import plain
    from simservice.proving.finish import finish
    from simservice.proving.recipes import all_recipes, find
    from simservice.proving.run import ProofConfig, as_json, prove

    recipes = list(all_recipes().values()) if name == ALL else [find(name)]
    config = ProofConfig(
        seeds=_seeds(seeds), out=out, with_controls=controls, with_rows=rows, control_agents=control_agents
    )
    proofs: list[dict[str, Any]] = []
    met = True
    for recipe in recipes:
        with spinner() as say:
            proof = prove(recipe, config, say)
            card = finish(proof, out)
        show([proof])
        next_step(f"open {card}")
        met = met and proof.met
        proofs.append(plain(as_json(proof)))
        # After every recipe: an interrupted run of all leaves what it found.
        (out / ("summary.json" if name == ALL else f"{name}.json")).write_text(
            json.dumps({"met": met, "proofs": proofs}, indent=2) + "\n"
        )
    if not met:
        raise typer.Exit(1)


def examine(
    world: Annotated[Path, typer.Argument(metavar="WORLD", help="Folder of a world.")],
    rows: Annotated[str, typer.Option(help="Rows of the acceptance table: A7,A7c; none: all that fit.")] = "",
    behaviour: Annotated[str, typer.Option(help="How its data was played: random, or mixed (CartPole).")] = "random",
) -> None:
    """Hold a world against the rows that every family must pass, on fresh real steps that only judge."""
    import torch

    from simservice.proving.rows.examine import examine

    if behaviour not in ("random", "mixed"):
        raise ConfigError(f"{behaviour!r} is no behaviour; there are random and mixed", key="behaviour")
    torch.set_num_threads(1)
    checks = examine(world, [row.strip() for row in rows.split(",") if row.strip()], behaviour)  # type: ignore[arg-type]
    _table(str(world), checks)
    if not all(check.met for check in checks):
        raise typer.Exit(1)


def show(proofs: Sequence[Proof]) -> None:
    """One line a bar and a control: what was asked, what was seen."""
    from simservice.proving.card import number

    for proof in proofs:
        chance = "" if proof.chance != proof.chance else f", random play {number(proof.chance)}"
        title = f"{proof.recipe.name}: {proof.recipe.title}, {proof.recipe.real_steps} real steps{chance}"
        _table(title, proof.checks)


def _table(title: str, checks: Sequence[Check]) -> None:
    from rich.table import Table

    from simservice.proving.card import number, verdict

    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("row", "what", "asked", "seen", ""):
        table.add_column(column, justify="right" if column in ("asked", "seen") else "left")
    for check in checks:
        word = verdict(check)
        style = {"ok": "green", "reported": "dim"}.get(word, "bold red")
        table.add_row(check.row, check.what, check.bar, number(check.seen), f"[{style}]{word}[/{style}]")
    console().print(table)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{text!r} are no seeds; name them like 0,1,2", key="seeds") from error
