"""The verbs that prove worlds: the whole way of a recipe, its controls, its card; of all recipes; rows of one world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simservice.cli.options import pick_device
from simservice.cli.screen import console, next_step, spinner
from simservice.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simservice.proving.proof import Proof
    from simservice.proving.recipe import Check

ALL = "all"


def prove(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"A recipe; {ALL} for every one.")],
    seeds: Annotated[str, typer.Option(help="Seeds, a world and an agent each: 0,1,2.")] = "0,1,2",
    out: Annotated[Path, typer.Option(help="Folder of cards, worlds and summary.json.")] = Path("runs/prove"),
    controls: Annotated[bool, typer.Option(help="Train agents in the controls, too.")] = True,
    rows: Annotated[bool, typer.Option(help="Hold the first world against the rows of every family, too.")] = True,
    control_agents: Annotated[int, typer.Option(min=1, help="Agents in each control; their median counts.")] = 3,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Parts made side by side, a thread each [one a processor]."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="On which worlds are trained: auto, cpu or cuda. All else is done on the processor.")
    ] = "cpu",
    again: Annotated[
        bool, typer.Option("--again", help="Make everything anew, also what is kept of the same data, code and recipe.")
    ] = False,
) -> None:
    """Prove a world: record, train, serve, train an agent inside, score it in reality, beside controls.

    What was finished before is used again where data, code and recipe are the same, and what was ended goes on.
    """
    from dataclasses import replace

    from simservice.proving.finish import finish
    from simservice.proving.proof import ProofConfig
    from simservice.proving.recipes import all_recipes, find
    from simservice.proving.run import prove_all

    recipes = list(all_recipes().values()) if name == ALL else [find(name)]
    config = ProofConfig(
        seeds=_seeds(seeds),
        out=out,
        with_controls=controls,
        with_rows=rows,
        control_agents=control_agents,
        again=again,
        device=pick_device(device),
    )
    if processes is not None:
        config = replace(config, processes=processes)
    proofs: list[Proof] = []
    with spinner() as say:
        for proof in prove_all(recipes, config, say):
            if proof.seeds:
                finish(proof, out)
            proofs.append(proof)
            show(proof)
            # After every recipe: an interrupted run of all leaves what it found.
            summary = out / ("summary.json" if name == ALL else f"{name}.json")
            _write(summary, proofs)
    if name == ALL:
        in_order = sorted(proofs, key=lambda proof: [recipe.name for recipe in recipes].index(proof.recipe.name))
        show_all(in_order)
        console().print(f"written to {summary}", style="dim", highlight=False)
    elif proofs[0].seeds:
        next_step(f"open {out / name / 'card.md'}")
    if not all(proof.met for proof in proofs):
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
    with spinner() as say:
        checks = examine(world, [row.strip() for row in rows.split(",") if row.strip()], behaviour, say=say)  # type: ignore[arg-type]
    _table(str(world), checks)
    if not all(check.met for check in checks):
        raise typer.Exit(1)


def show(proof: Proof) -> None:
    """One line a bar, a control and a row of one recipe: what was asked, what was seen."""
    from simservice.proving.card import number

    chance = "" if proof.chance != proof.chance else f", random play {number(proof.chance)}"
    title = f"{proof.recipe.name}: {proof.recipe.title}, {proof.recipe.real_steps} real steps{chance}"
    _table(title, proof.checks)


def show_all(proofs: Sequence[Proof]) -> None:
    """All recipes in one table; controls stand beside the return that they are held against."""
    from rich.table import Table

    from simservice.proving.card import number, verdict

    table = Table(title="all recipes", title_justify="left", title_style="bold")
    for column in ("row", "recipe", "what", "asked", "seen", "controls", ""):
        table.add_column(column, justify="right" if column in ("asked", "seen") else "left")
    for proof in proofs:
        table.add_section()
        controls = ", ".join(f"{control.name} {number(control.real_return)}" for control in proof.controls)
        names = {control.name for control in proof.controls}
        for check in proof.checks:
            if check.row in names and check.met:
                continue  # beside the return
            word = verdict(check)
            beside = controls if check.what.startswith("real_return (") else ""
            cells = (check.row, proof.recipe.name, check.what, check.bar, number(check.seen), beside)
            table.add_row(*cells, f"[{_style(word)}]{word}[/]")
    console().print(table)
    short = [proof.recipe.name for proof in proofs if not proof.met]
    console().print(f"fell short: {', '.join(short)}" if short else "all bars reached", highlight=False)


def _table(title: str, checks: Sequence[Check]) -> None:
    from rich.table import Table

    from simservice.proving.card import number, verdict

    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("row", "what", "asked", "seen", ""):
        table.add_column(column, justify="right" if column in ("asked", "seen") else "left")
    for check in checks:
        word = verdict(check)
        table.add_row(check.row, check.what, check.bar, number(check.seen), f"[{_style(word)}]{word}[/]")
    console().print(table)


def _style(word: str) -> str:
    return {"ok": "green", "reported": "dim"}.get(word, "bold red")


def _write(summary: Path, proofs: Sequence[Proof]) -> None:
    from simservice.proving.card import plain
    from simservice.proving.proof import as_json

    found: dict[str, Any] = {
        "met": all(proof.met for proof in proofs),
        "proofs": [plain(as_json(proof)) for proof in proofs],
    }
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(json.dumps(found, indent=2) + "\n")


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{text!r} are no seeds; name them like 0,1,2", key="seeds") from error
