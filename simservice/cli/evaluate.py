"""The verb that says whether a world can be trusted: against reality with all there is, or on recorded episodes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simservice.cli.options import Address, Arguments, Root, Seed, Settings, load_policy
from simservice.cli.screen import console, figure, spinner
from simservice.errors import InvalidInput, MissingDataset

if TYPE_CHECKING:
    from simservice.monitor.evaluation.evaluate import Evaluation as WholeEvaluation
    from simservice.monitor.reality import ProbeConfig
    from simservice.training.evaluate import Evaluation
    from simservice.types import Episode

MARKS = {"good": "[green]✓[/]", "close": "[yellow]![/]", "bad": "[bold red]✗[/]", "unknown": "[dim]?[/]"}
GRADES = {"trustworthy": "bold green", "with care": "bold yellow", "untrustworthy": "bold red", "unknown": "bold"}


def evaluate(
    world: Annotated[
        str, typer.Argument(metavar="WORLD", help="Folder that `simservice train` wrote, or a served world's name.")
    ],
    dataset: Annotated[
        str | None,
        typer.Argument(metavar="[DATASET]", help="Measure on these recorded episodes alone, and play nothing."),
    ] = None,
    address: Address = "127.0.0.1:50051",
    env: Annotated[
        str | None, typer.Option(help="The real environment (default: the one it was learned from).")
    ] = None,
    arg: Arguments = None,
    settings: Settings = None,
    policy: Annotated[
        list[Path] | None, typer.Option(help="Policy file to score beside the suite; one training run each.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Dataset it was learned from (default: looked for by the name it states).")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps ahead that agents will imagine [15].")] = None,
    episodes: Annotated[int, typer.Option(min=2, help="Real episodes of each policy.")] = 16,
    horizon: Annotated[int, typer.Option(min=1, help="Steps ahead to look.")] = 100,
    windows: Annotated[int, typer.Option(min=10, help="Starts to look ahead from.")] = 256,
    max_real_steps: Annotated[int | None, typer.Option(min=1, help="Most real steps to spend in all.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of report.html and evaluation.json (default: runs/evaluate/WORLD); with DATASET: "
                     "file for the figures as JSON."),
    ] = None,
    seed: Seed = 0,
    root: Root = None,
) -> None:  # fmt: skip
    """Say whether a world can be trusted: eight numbers and a verdict, against the real environment.

    Plays a suite of policies in reality and in the world, optimises one inside and scores it outside, and looks whether
    reality has moved since the world's data was recorded.
    """
    if dataset is not None:
        _evaluate_recorded(Path(world), dataset, out, root)
        return
    from simservice.monitor.reality import ProbeConfig

    with _served(world, address) as (where, name, provenance):
        env_id, kwargs, attributes = _real_environment(world, provenance, env, arg, settings)
        config = ProbeConfig(
            env_id=env_id,
            env_kwargs=kwargs,
            attributes=attributes,
            episodes=episodes,
            horizon=horizon,
            windows=windows,
            seed=seed,
        )
        training, why = _training_data(world, provenance, data, root)
        found = _whole(where, name, config, policy or [], training, steps, max_real_steps)
    folder = out if out is not None else Path("runs/evaluate") / found.world.partition("@")[0]
    _write(found, folder)
    show(found)
    if why:
        console().print(f"[dim]{why}[/]", highlight=False)
    console().print(f"report: {folder / 'report.html'}    figures: {folder / 'evaluation.json'}", highlight=False)


@contextlib.contextmanager
def _served(world: str, address: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Where it is served, its name, and what it was learned from; a folder is served here while it is evaluated."""
    from simservice.client.worlds import get_world

    if not Path(world).is_dir():
        if "/" in world:
            raise InvalidInput("WORLD", f"there is no folder {world}; `simservice train` writes worlds into folders")
        yield address, world, get_world(address, world).provenance
        return
    import torch

    from simservice.serving.local import LocalConfig, LocalServer
    from simservice.worlds import checkpoint

    torch.set_num_threads(1)
    checkpoint.describe(Path(world))
    with LocalServer([world], store_url="memory:", config=LocalConfig(grace_s=0.1)) as server:
        name = server.service.replicas[0].hosted.contract.spec.full_name
        yield server.address, name, get_world(server.address, name).provenance


def _real_environment(
    world: str,
    provenance: Mapping[str, Any],
    env: str | None,
    arg: list[str] | None,
    settings: list[str] | None,
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The environment's id, its arguments and what is changed of it: the world's own, unless told otherwise."""
    from simservice.data.environments import parse_settings

    env_id = env or provenance.get("env_id")
    if not env_id:
        raise InvalidInput("--env", f"world {world!r} does not say what it was learned from; name the real environment")
    own = env_id == provenance.get("env_id")
    kwargs = provenance.get("env_kwargs") or {} if own else {}
    attributes = provenance.get("env_attributes") or {} if own else {}
    return (
        env_id,
        {**kwargs, **parse_settings(arg or [], "--arg")},
        {**attributes, **parse_settings(settings or [], "--set")},
    )


def _training_data(
    world: str, provenance: Mapping[str, Any], data: str | None, root: Path | None
) -> tuple[Sequence[Episode], str]:
    """The episodes it was learned from, if they can be found and are the very ones; else none, and why."""
    from simservice.data.minari import load_dataset

    name = data or provenance.get("dataset_id")
    if not name:
        return (), ""
    beside = Path(world).parent / "datasets"
    for place in dict.fromkeys([root, beside if beside.is_dir() else None, None]):
        try:
            found = load_dataset(name, place)
        except (MissingDataset, InvalidInput):
            if data is not None and place == root:
                raise
            continue
        if data is not None or found.hash == provenance.get("dataset_hash"):
            return found.episodes, ""
    return (), f"its data {name} was not found here; with --data or --root more would be known"


def _whole(
    address: str,
    name: str,
    config: ProbeConfig,
    policies: list[Path],
    training: Sequence[Episode],
    steps: int | None,
    max_real_steps: int | None,
) -> WholeEvaluation:
    from simservice.data.collect import RealStepCounter
    from simservice.fidelity.thresholds import LEAST_STEPS
    from simservice.monitor.evaluation.evaluate import evaluate as measure

    acting = {path.stem: load_policy(path, config.seed, greedy=True) for path in policies}
    if len(acting) != len(policies):
        raise InvalidInput("--policy", "two files have the same name; a policy is told from others by it")
    with spinner() as tell:
        return measure(
            address,
            name,
            config,
            policies=acting,
            training=training,
            steps=steps or LEAST_STEPS,
            counter=RealStepCounter(max_real_steps),
            tell=tell,
        )


def _write(found: WholeEvaluation, folder: Path) -> None:
    from simservice.monitor.evaluation.figures import figures
    from simservice.web.evaluation_page import render

    values = figures(found)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")
    (folder / "report.html").write_text(render(values), encoding="utf-8")


def show(found: WholeEvaluation) -> None:
    """The eight numbers and the verdict on one screen."""
    from rich.table import Column, Table

    from simservice.fidelity.reading import interval_shown, shown

    screen = console()
    changed = ", ".join(f"{name}={value}" for name, value in found.attributes.items())
    screen.print(
        f"[bold]{found.world}[/] against {found.env_id}{f' with {changed}' if changed else ''}: {found.real_episodes} "
        f"real episodes, {found.real_steps:,} real steps, {found.seconds:.0f} s",
        highlight=False,
    )
    names = ("", "", "seen", "95 % interval", "bar", "floor", "level", "from")
    columns = [Column(name, no_wrap=True) for name in names]
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 1, 0, 0))  # fits into 80 columns
    for line in found.page.lines:
        for place, reading in enumerate(line.readings):
            floor = "" if reading.floor.median != reading.floor.median else shown(reading.floor.median, reading.kind)
            units = {"policy": "pol.", "episode": "ep."}.get(reading.unit, f"{reading.unit}s")
            table.add_row(
                MARKS[reading.mark],
                reading.name if place == 0 else f"  {reading.name}",
                shown(reading.score.value, reading.kind),
                interval_shown(reading.score, reading.kind),
                f"{'≤' if reading.at_most else '≥'} {shown(reading.bar, reading.kind)}",
                floor,
                reading.level,
                f"{reading.score.units} {units}" if reading.score.units and place == 0 else "",
            )
    screen.print(table)
    verdict = found.page.verdict
    screen.print(f"[{GRADES[verdict.grade]}]{verdict.headline}[/]", highlight=False)
    for reason in verdict.reasons:
        screen.print(f"  - {reason}", highlight=False, markup=False)


def _evaluate_recorded(world: Path, dataset: str, out: Path | None, root: Path | None) -> None:
    """Open-loop error on recorded episodes, beside persistence and a linear model."""
    import torch

    from simservice.data.minari import load_dataset
    from simservice.training.evaluate import evaluate_on
    from simservice.worlds import checkpoint

    torch.set_num_threads(1)
    loaded = checkpoint.load(world)
    recorded = load_dataset(dataset, root)
    with spinner() as tell:
        tell("imagining what was recorded")
        evaluation = evaluate_on(loaded.world, loaded.provenance, recorded)
    own = recorded.hash == loaded.provenance.dataset_hash
    which = "held out of its training" if own else "half of the dataset; the linear model is fitted on the other half"
    console().print(
        f"[bold]{loaded.world.spec.full_name}[/bold] on {evaluation.episodes} episodes of {dataset} ({which})",
        highlight=False,
    )
    show_recorded(evaluation)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"world": loaded.world.spec.full_name, **evaluation.figures()}, indent=2) + "\n")


def show_recorded(evaluation: Evaluation) -> None:
    """The figures of a world on recorded episodes, on one screen."""
    from rich.table import Table

    screen = console()
    errors = Table("steps ahead", *map(str, evaluation.errors), box=None, pad_edge=False)
    for words, column in (("this world", "world"), ("nothing changes", "persistence"), ("linear model", "linear")):
        errors.add_row(words, *(figure(getattr(error, column)) for error in evaluation.errors.values()))
    errors.add_row("starts alive then", *(str(error.windows) for error in evaluation.errors.values()))
    screen.print(errors)
    end, trusted = evaluation.termination, evaluation.trust_horizon_steps
    screen.print(
        f"reward R² {figure(evaluation.reward_r2)} (error {figure(evaluation.reward_rmse)}), termination precision "
        f"{figure(end.precision)} and recall {figure(end.recall)} ({100 * end.base_rate:.1f} % of steps end), "
        f"trust horizon [bold]{'unknown' if trusted is None else f'{trusted} steps'}[/bold]",
        highlight=False,
    )
