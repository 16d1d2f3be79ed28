"""The verb that measures a served world against reality: probe, once or without pause."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simservice.cli.options import Address, Arguments, Seed, Settings, load_policy
from simservice.cli.screen import console, figure, spinner
from simservice.errors import InvalidInput

if TYPE_CHECKING:
    from simservice.data.collect import RealStepCounter
    from simservice.monitor.report import ProbeReport


def probe(
    world: Annotated[str, typer.Argument(metavar="WORLD", help="Name of the served world, or name@version.")],
    address: Address = "127.0.0.1:50051",
    env: Annotated[
        str | None, typer.Option(help="The real environment (default: the one it was learned from).")
    ] = None,
    arg: Arguments = None,
    settings: Settings = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file to probe with, beside random play.")] = None,
    episodes: Annotated[int, typer.Option(min=2, help="Real episodes of each policy.")] = 16,
    horizon: Annotated[int, typer.Option(min=1, help="Steps ahead to look.")] = 100,
    windows: Annotated[int, typer.Option(min=10, help="Starts to look ahead from.")] = 256,
    max_real_steps: Annotated[int | None, typer.Option(min=1, help="Most real steps to spend in all.")] = None,
    every: Annotated[float | None, typer.Option(min=0, help="Probe again every so many seconds, until Ctrl-C.")] = None,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the Prometheus page.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures there as JSON.")] = None,
    seed: Seed = 0,
) -> None:
    """Measure a served world against the real environment: how far it can be trusted, how honest its returns are."""
    from simservice.client.worlds import get_world
    from simservice.data.collect import RealStepCounter
    from simservice.data.environments import parse_settings
    from simservice.monitor.probe import probe as measure
    from simservice.monitor.reality import ProbeConfig

    origin = get_world(address, world).provenance
    env_id = env or origin.get("env_id")
    if not env_id:
        raise InvalidInput("--env", f"world {world!r} does not say what it was learned from; name the real environment")
    own = env_id == origin.get("env_id")
    config = ProbeConfig(
        env_id=env_id,
        env_kwargs={**(origin.get("env_kwargs") or {} if own else {}), **parse_settings(arg or [], "--arg")},
        attributes={**(origin.get("env_attributes") or {} if own else {}), **parse_settings(settings or [], "--set")},
        episodes=episodes,
        horizon=horizon,
        windows=windows,
        seed=seed,
    )
    acting = load_policy(policy, seed, greedy=True) if policy is not None else None
    counter = RealStepCounter(max_real_steps)

    def once(number: int, counter: RealStepCounter) -> ProbeReport:
        with spinner() as tell:
            report = measure(
                address, world, replace(config, seed=seed + number), policy=acting, counter=counter, tell=tell
            )
        show(report)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(report.to_json(), indent=2) + "\n")
        return report

    if every is None and metrics_port is None:
        once(0, counter)
    else:
        name, every_s = world.partition("@")[0], every if every is not None else 60.0
        watch_until_interrupted(name, once, counter, every_s=every_s, metrics_port=metrics_port or 0)


def watch_until_interrupted(
    world: str,
    once: Callable[[int, RealStepCounter], ProbeReport],
    counter: RealStepCounter,
    *,
    every_s: float,
    metrics_port: int,
) -> None:
    """Probes without pause and shows the newest figures to Prometheus; Ctrl-C ends it."""
    from simservice.monitor.watch import watch
    from simservice.telemetry import FidelityMetrics, start_http

    metrics, stop = FidelityMetrics(), threading.Event()
    page = start_http(metrics.registry, metrics_port)
    console().print(f"metrics at {page.url}, a probe every {every_s:g} s, Ctrl-C ends it", highlight=False)
    try:
        watch(world, once, metrics, every_s=every_s, stop=stop, counter=counter)
    finally:
        page.close()


def show(report: ProbeReport) -> None:
    """A probe's findings on one screen."""
    from rich.table import Table

    from simservice.fidelity.states import HORIZONS

    screen = console()
    changed = ", ".join(f"{name}={value}" for name, value in report.attributes.items())
    screen.print(
        f"[bold]{report.world}@{report.model_version}[/bold] against {report.env_id}"
        f"{f' with {changed}' if changed else ''}: "
        f"{report.real_episodes} real episodes, {report.real_steps} real steps, {report.seconds:.1f} s",
        highlight=False,
    )
    end = _why_it_ends(report)
    others = ", ".join(f"{tau:g}: {steps}" for tau, steps in report.trust_horizon_steps.items())
    screen.print(f"trust horizon [bold]{report.trust_horizon} steps[/bold]{end}  [dim]by tolerance {others}[/dim]")
    leads = [lead for lead in HORIZONS if lead <= len(report.curve.error)]
    errors = Table("steps ahead", *map(str, leads), box=None, pad_edge=False)
    errors.add_row("error over spread", *(figure(report.curve.at(lead)) for lead in leads))
    errors.add_row("95 % upper bound", *(figure(report.curve.upper[lead - 1]) for lead in leads))
    errors.add_row("alive in reality", *(f"{100 * report.curve.alive[lead - 1]:.0f} %" for lead in leads))
    screen.print(errors)
    gaps = Table("policy", "imagined return", "real return", "gap", "95 % interval", box=None, pad_edge=False)
    for gap in report.returns.policies:
        interval = f"{figure(gap.gap.lower)} to {figure(gap.gap.upper)}"
        gaps.add_row(gap.policy, f"{gap.imagined_mean:.1f}", f"{gap.real_mean:.1f}", figure(gap.gap.value), interval)
    screen.print(gaps)
    steps = (("reward error", "reward_error_ratio"), ("termination F1", "termination_f1_ratio"))
    screen.print(
        f"largest gap {figure(report.returns.max_abs.value)} (two batches of reality differ by "
        f"{figure(report.returns.floor)}), "
        + ", ".join(f"{words} {figure(report.scores[name].value)}" for words, name in steps),
        highlight=False,
    )


def _why_it_ends(report: ProbeReport) -> str:
    """Said where it is not the world's error that ends trust."""
    trusted, looked = report.trust_horizon, len(report.curve.error)
    if trusted == looked:
        return " (as far as was looked)"
    if math.isnan(report.curve.error[trusted]):
        return " (beyond, too few real episodes were alive to say)"
    return ""
