"""The verbs around a running service: serve, worlds."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from simservice.cli.options import Address, pick_device
from simservice.cli.screen import console, spinner
from simservice.errors import ConfigError


def serve(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that `simservice train` wrote.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 50051,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    replicas: Annotated[str, typer.Option(help="Replicas of each world: N, or MIN-MAX to follow the load.")] = "1",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    gpus_per_replica: Annotated[
        float | None, typer.Option(min=0, help="GPU share of a replica (default: shared out evenly).")
    ] = None,
    store_url: Annotated[
        str | None, typer.Option(help="Redis or Valkey of the sessions (default: REDIS_URL, else an embedded one).")
    ] = None,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the Prometheus page; 0 takes a free one.")
    ] = 0,
    lanes: Annotated[
        int, typer.Option(min=1, help="Lanes of each replica; fewer where the device has no memory for them.")
    ] = 4096,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Fuse the worlds' arithmetic: faster on a GPU, a minute more to start.")
    ] = False,
    tenants: Annotated[
        Path | None, typer.Option(help="File of the tenants, their tokens and quotas (default: anybody, no limits).")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate of the service, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Let in only clients with a certificate of this authority, PEM.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow plaintext, or anybody, on a --host others can reach.")
    ] = False,
    monitor: Annotated[
        bool, typer.Option(help="Watch worlds whose real environment is known, in a process of its own.")
    ] = True,
    monitor_folder: Annotated[Path, typer.Option(help="Where the monitor keeps what it learned.")] = Path(
        "runs/monitor"
    ),
    monitor_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the monitor's Prometheus page; 0 takes a free one.")
    ] = 0,
    local: Annotated[bool, typer.Option("--local", help="One process without Ray: for laptops and notebooks.")] = False,
) -> None:
    """Serve worlds to agents, on Ray Serve or in one process, until Ctrl-C."""
    from simservice.serving.settings import DoorSettings, parse_replicas

    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device is auto, cpu or cuda, found {device!r}", key="device")
    tls = {"tls_cert": tls_cert, "tls_key": tls_key, "tls_client_ca": tls_client_ca}
    doors: dict[str, Any] = {
        name: None if path is None else str(path) for name, path in {**tls, "tenants": tenants}.items()
    }
    DoorSettings(host=host, insecure=insecure, **doors).check_doors()
    bounds = parse_replicas(replicas)
    where = {"host": host, "port": port, "insecure": insecure, "store_url": store_url, "metrics_port": metrics_port}
    where |= doors
    watched = _Watched(folders, monitor_folder, monitor_port) if monitor else None
    where["monitor"] = watched.hash if watched is not None else ""
    if local:
        if bounds != (1, 1):
            raise ConfigError("--local is one process with one replica; leave --replicas out, or --local")
        replica = {"device": pick_device(device), "capacity": lanes, "compiled": compiled}
        _serve_local(folders, replica, where, watched)
    else:
        settings = {
            "replicas": bounds,
            "device": device,
            "gpus_per_replica": gpus_per_replica,
            "lanes_per_replica": lanes,
            "compiled": compiled,
        }
        _serve_on_ray(folders, {**settings, **where}, watched)


def token() -> None:
    """Make a random token for a tenant: the token itself, and the line that a tenants file holds of it."""
    from simservice.serving.tenants import hash_line, new_token

    made = new_token()
    typer.echo(f"token (for the tenant, shown only now): {made}")
    typer.echo(f'for the tenants file:                   "{hash_line(made)}"')


def worlds(address: Address = "127.0.0.1:50051") -> None:
    """List the worlds served at an address."""
    from rich.table import Column, Table

    from simservice.client.worlds import list_worlds

    contracts = list_worlds(address)
    names = Column("world", no_wrap=True, min_width=max((len(one.spec.full_name) for one in contracts), default=0))
    table = Table(names, "family", "learned from", "real steps", "trust horizon", "cap", box=None, pad_edge=False)
    for contract in contracts:
        spec, origin = contract.spec, contract.provenance
        table.add_row(
            spec.full_name,
            spec.family,
            str(origin.get("env_id") or "-"),
            str(origin.get("real_steps") or "-"),
            f"{spec.trust_horizon_steps} steps" if spec.trust_horizon_steps is not None else "-",
            str(spec.max_episode_steps or "-"),
        )
    console().print(table if table.row_count else f"no world is served at {address}")


class _Watched:
    """The worlds of a service that its monitor watches, and that process while it runs."""

    def __init__(self, folders: list[Path], folder: Path, port: int) -> None:
        from simservice.serving.address import free_port
        from simservice.serving.tenants import hash_line, new_token

        self._folders = folders
        self._folder, self._port = folder, free_port(port=port)
        self._token = new_token()
        self.hash = hash_line(self._token)
        self._running = contextlib.ExitStack()

    def start(self, address: str | None) -> None:
        """Starts it and says so; without an address where it could come in, or a world, says how or nothing."""
        from simservice.serving.monitor_child import MonitorChild
        from simservice.worlds import checkpoint

        described = [checkpoint.describe(one) for one in self._folders]
        worlds = [spec.name for spec, provenance in described if provenance.env_id]
        if not worlds:
            return
        if address is None:
            told = "not watched: a monitor needs this service's certificate; start simservice monitor beside it"
            return console().print(told, style="dim", highlight=False)
        child = MonitorChild(address, worlds, self._folder, self._port, self._token)
        self._running.enter_context(child)
        console().print(
            f"watching {', '.join(worlds)} against reality: metrics at {child.metrics_url}, log {child.log} "
            "(--no-monitor leaves it out)",
            highlight=False,
        )

    def stop(self) -> None:
        """Ends it."""
        self._running.close()


def _serve_local(folders: list[Path], replica: dict[str, Any], where: dict[str, Any], watched: _Watched | None) -> None:
    from simservice.serving.settings import GRPC_EXPERIMENTS

    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)  # read when grpc is imported, by the next line

    from simservice.serving.local import LocalConfig, LocalService, serve_local
    from simservice.serving.wiring import ReplicaConfig

    config = LocalConfig(**where, replica=ReplicaConfig(**replica))

    def ready(service: LocalService) -> None:
        names = [replica.hosted.contract.spec.full_name for replica in service.replicas]
        _show(names, service.address, service.metrics_urls, tenants=config.tenants is not None)
        if watched is not None:
            watched.start(service.address if config.tls_cert is None else None)

    try:
        serve_local(folders, config, ready=ready)
    finally:
        if watched is not None:
            watched.stop()


def _serve_on_ray(folders: list[Path], settings: dict[str, Any], watched: _Watched | None) -> None:
    if importlib.util.find_spec("ray") is None:  # Ray runs in a process of its own, which could not say so
        raise ModuleNotFoundError("No module named 'ray'", name="ray")
    from simservice.serving.service import RayService
    from simservice.worlds import checkpoint

    for folder in folders:
        checkpoint.describe(folder)  # a folder that is no world is told before a cluster is started
    service = RayService(folders, **settings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    try:
        with spinner() as tell:
            tell("starting Ray Serve and HAProxy")
            service.start()
        metrics = [service.metrics_url] if service.metrics_url else []
        _show(service.worlds, service.address, metrics, tenants=settings["tenants"] is not None)
        if watched is not None:
            watched.start(service.address if settings["tls_cert"] is None else service.inner_address)
        with contextlib.suppress(KeyboardInterrupt):
            service.wait()
    finally:
        if watched is not None:
            watched.stop()
        service.stop()


def _show(names: list[str], address: str, metrics: Sequence[str], *, tenants: bool) -> None:
    screen = console()
    screen.print(f"serving [bold]{', '.join(names)}[/bold] at [bold]{address}[/bold]", highlight=False)
    if metrics:
        screen.print(f"metrics at {', '.join(metrics)}", highlight=False)
    world = names[0].partition("@")[0]
    screen.print(
        'in Python: gym.make_vec("simservice.client:simservice/World-v0", num_envs=64,\n'
        f'                        vectorization_mode="vector_entry_point", address="{address}", world="{world}")\n'
        f"{'with token=… or SIMSERVICE_TOKEN, which tells whose session it is; ' if tenants else ''}Ctrl-C ends it",
        style="dim",
        highlight=False,
    )
