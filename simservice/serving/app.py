"""Serves worlds on Ray Serve: in this process, as another process's child, and on a cluster that runs already."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

from ray import serve

from simservice import config
from simservice.errors import ConfigError, InternalError, SimserviceError
from simservice.serving.cluster import Cluster, ClusterConfig
from simservice.serving.fleet import Fleet, world_application
from simservice.serving.replica import MetricsConfig
from simservice.serving.settings import ClusterWorld, DoorSettings, ServeConfig
from simservice.serving.wiring import ReplicaConfig
from simservice.sessions.embedded import store_from_url
from simservice.telemetry import MetricsServer
from simservice.types import WorldSpec
from simservice.worlds import checkpoint


class Running:
    """A service that is up."""

    def __init__(self, cluster: Cluster, fleet: Fleet, metrics: MetricsServer | None, worlds: list[WorldSpec]) -> None:
        self.address = cluster.address
        self.folder = cluster.folder
        self.fleet = fleet
        self.metrics_url = metrics.url if metrics is not None else None
        self.worlds = worlds


@contextlib.contextmanager
def running(folders: Sequence[Path | str], settings: ServeConfig) -> Iterator[Running]:
    """A service in this process for the block; everything it started has ended when the block is left.

    Raises what is wrong with the folders, the address or the store before anything is started.
    """
    names = [checkpoint.describe(folder)[0].name for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two of the folders hold a world named {name!r}; a service has one version of each")
    doors = {field.name: getattr(settings, field.name) for field in fields(DoorSettings)}
    cluster = Cluster(ClusterConfig(num_cpus=settings.num_cpus, **doors))
    with contextlib.ExitStack() as stack:
        store_url = stack.enter_context(store_from_url(settings.store_url))
        stack.callback(cluster.stop)
        cluster.start()
        fleet = Fleet(cluster, store_url, settings, worlds_expected=len(names))
        metrics = None
        if settings.metrics_port is not None:
            metrics = fleet.serve_metrics(settings.metrics_port)
            stack.callback(metrics.close)
        worlds = [fleet.deploy(folder) for folder in folders]
        yield Running(cluster, fleet, metrics, worlds)


def build(args: dict[str, Any]) -> serve.Application:
    """One world's application for a Ray cluster that runs already: what deploy/serve.yaml names.

    `args` are the fields of ClusterWorld. The store must be one that every node reaches.
    """
    world = config.build(ClusterWorld, args)
    store_url = world.store_url or os.environ.get("REDIS_URL")
    if store_url is None:
        raise ConfigError("store_url is missing: on a cluster sessions need a Redis that every node reaches")
    metrics = MetricsConfig(folder=world.metrics_folder, listen=world.metrics_listen, announce=world.metrics_announce)
    return world_application(
        world.folder, store_url, world, metrics, ReplicaConfig(tenants=world.tenants, formers=world.formers)
    )


def _answer(service: Running, call: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if call == "deploy":
        replicas = arguments["replicas"]
        spec = service.fleet.deploy(arguments["folder"], None if replicas is None else tuple(replicas))
        return {"world": spec.full_name}
    if call == "remove":
        service.fleet.remove(arguments["world"])
        return {}
    if call == "replicas":
        return {"replicas": [asdict(replica) for replica in service.fleet.replicas()]}
    raise InternalError(f"the service's process knows no call {call!r}")


def _obey(commands: IO[str], answers: IO[str]) -> None:
    """Starts a service as the first command says and answers the others; ends with the commands."""

    def reply(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    def fail(error: SimserviceError) -> None:
        reply({"error": {"reason": error.reason, "message": str(error), "details": error.details}})

    first = json.loads(commands.readline())
    settings = config.build(ServeConfig, first["config"])
    try:
        with running(first["folders"], settings) as service:
            worlds = [spec.full_name for spec in service.worlds]
            where = {"address": service.address, "metrics_url": service.metrics_url, "folder": str(service.folder)}
            reply({**where, "worlds": worlds})
            for line in commands:
                command = json.loads(line)
                try:
                    reply(_answer(service, command.pop("call"), command))
                except SimserviceError as error:
                    fail(error)
    except SimserviceError as error:
        fail(error)


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[1]), encoding="utf-8") as commands, os.fdopen(int(sys.argv[2]), "w") as answers:
        _obey(commands, answers)
