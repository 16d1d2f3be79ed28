"""The verbs that watch served worlds: monitor, acknowledge, report."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simservice.cli.options import Address, Arguments, Root, Seed, Settings
from simservice.cli.screen import bar, console
from simservice.errors import InvalidInput

if TYPE_CHECKING:
    from simservice.telemetry import MetricsServer

Folder = Annotated[Path, typer.Option(help="Where a monitor keeps what it learned, a folder a world.")]
PRIORITY = 10  # of the monitor beside a service: below everything that agents wait for


def monitor(
    worlds: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORLD]...", help="Worlds to watch (default: all whose real environment is known)."),
    ] = None,
    address: Address = "127.0.0.1:50051",
    folder: Folder = Path("runs/monitor"),
    env: Annotated[
        str | None, typer.Option(help="The real environment of the one world that is named (default: its own).")
    ] = None,
    arg: Arguments = None,
    settings: Settings = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file to probe with, beside random play.")] = None,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds from one probe to the next.")] = 60.0,
    horizon: Annotated[int, typer.Option(min=1, help="Most real steps of a probe.")] = 20,
    steps_per_hour: Annotated[
        float | None, typer.Option(min=1, help="Budget of real steps: probes slow down to keep it.")
    ] = None,
    max_real_steps: Annotated[
        int | None, typer.Option(min=1, help="Most real steps in all; then probing ends.")
    ] = None,
    reference_probes: Annotated[
        int, typer.Option(min=50, help="Real probes that the monitor model is fitted to.")
    ] = 1080,
    calibration_probes: Annotated[
        int, typer.Option(min=100, help="Real probes of each policy that say what is normal.")
    ] = 2000,
    calibration: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="A Minari dataset that says what is normal, instead of probes."),
    ] = None,
    fidelity_every: Annotated[
        float, typer.Option(min=0, help="Seconds between measurements of the front page; 0: never.")
    ] = 3600.0,
    golden_every: Annotated[
        float, typer.Option(min=0, help="Seconds between exact replays of real episodes; 0: never.")
    ] = 600.0,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the Prometheus page.")] = 0,
    seed: Seed = 0,
    until_stdin_ends: Annotated[bool, typer.Option("--until-stdin-ends", hidden=True)] = False,
) -> None:
    """Watch served worlds: probe their real environments, and say when reality has moved, until Ctrl-C."""
    from simservice.data.environments import parse_settings
    from simservice.monitor.normal import NormalConfig
    from simservice.monitor.pace import PaceConfig
    from simservice.monitor.process import Monitor, MonitorConfig
    from simservice.monitor.rig import RigConfig
    from simservice.monitor.world_watch import WatchConfig

    if (env or arg or settings) and len(worlds or ()) != 1:
        raise InvalidInput("--env", "is of one world, so name that world: simservice monitor WORLD --env ID")
    rig = None
    if env is not None:
        kwargs, attributes = parse_settings(arg or [], "--arg"), parse_settings(settings or [], "--set")
        rig = RigConfig(env_id=env, env_kwargs=kwargs, attributes=attributes)
    elif arg or settings:
        raise InvalidInput("--env", "goes with --arg and --set: name the environment that they change")
    watch = WatchConfig(
        pace=PaceConfig(every_s=every, steps_per_hour=steps_per_hour),
        normal=NormalConfig(horizon=horizon, reference_probes=reference_probes, calibration_probes=calibration_probes),
        calibration=calibration,
        fidelity_every_s=fidelity_every or None,
        golden_every_s=golden_every or None,
        max_real_steps=max_real_steps,
    )
    made = Monitor(
        MonitorConfig(
            address=address,
            folder=folder,
            worlds=tuple(worlds or ()),
            rig=rig,
            policy=None if policy is None else str(policy.resolve()),
            seed=seed,
            watch=watch,
            metrics_port=metrics_port,
        )
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if until_stdin_ends:
        _end_with_parent(made.stop)

    def ready(page: MetricsServer) -> None:
        console().print(f"watching {address}, metrics at {page.url}, Ctrl-C ends it", highlight=False)

    signal.signal(signal.SIGTERM, lambda *_: made.stop())
    signal.signal(signal.SIGINT, lambda *_: made.stop())
    made.run(ready)


def acknowledge(
    world: Annotated[str, typer.Argument(metavar="WORLD", help="Name of the watched world.")],
    folder: Folder = Path("runs/monitor"),
) -> None:
    """Take a world's drift alarm as known: its monitor learns what is normal now, and watches on."""
    from simservice.monitor.kept import request_acknowledgement

    epoch = request_acknowledgement(folder, world)
    console().print(
        f"change {epoch + 1} of [bold]{world}[/bold] is acknowledged; its monitor, now or when it is started again, "
        "learns what is normal now",
        highlight=False,
    )


def report(
    world: Annotated[str, typer.Argument(metavar="WORLD", help="Name of the served world.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Id or folder of a Minari dataset.")],
    address: Address = "127.0.0.1:50051",
    root: Root = None,
    environment_version: Annotated[str, typer.Option(help="Version of the real environment, in your words.")] = "",
) -> None:
    """Report real episodes to the service, for its monitor: whole ones, each counted once."""
    from simservice.client.reports import report as hand_in
    from simservice.data.minari import load_dataset

    episodes = load_dataset(dataset, root).episodes
    whole = [episode for episode in episodes if episode.terminated or episode.truncated]
    if not whole:
        raise InvalidInput("dataset", f"{dataset} holds no episode that has ended")
    with bar("episodes reported", len(whole)) as advance:
        receipt = hand_in(address, world, whole, environment_version=environment_version, on_progress=advance)
    unfinished = len(episodes) - len(whole)
    console().print(
        f"{receipt.accepted} episodes accepted, {receipt.repeated} known before"
        + (f", {unfinished} left out that had not ended" if unfinished else ""),
        highlight=False,
    )


def _end_with_parent(stop: Callable[[], None]) -> None:
    """Calls `stop` when stdin ends: whoever started this process has ended. Yields to everything else meanwhile."""
    with contextlib.suppress(OSError):
        os.nice(PRIORITY)

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):  # a buffer has a lock, which would outlive the interpreter
            pass
        stop()

    threading.Thread(target=wait, daemon=True).start()
