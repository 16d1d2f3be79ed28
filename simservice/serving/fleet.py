"""The worlds of one service on Ray Serve: one application a world, deployed, replaced and counted. Knows no gRPC."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from simservice.errors import ConfigError, InternalError
from simservice.serving.announcement import Announcement, announced
from simservice.serving.cluster import Cluster
from simservice.serving.front import replicas_up, version_served
from simservice.serving.replica import MetricsConfig, WorldReplica
from simservice.serving.settings import ReplicaSettings
from simservice.serving.tenants import hash_line, new_token
from simservice.serving.wiring import ReplicaConfig
from simservice.telemetry import FleetMetrics, MetricsServer, start_http
from simservice.types import WorldSpec
from simservice.worlds import checkpoint

DEPLOYMENT = "World"
READY_TIMEOUT_S = 120.0
UNLIMITED = 1_000_000  # streams a replica takes; lanes, not streams, are its limit


def world_application(
    folder: str,
    store_url: str,
    settings: ReplicaSettings,
    metrics: MetricsConfig | None = None,
    config: ReplicaConfig | None = None,
) -> serve.Application:
    """The Serve application of the world in a checkpoint folder that every node can read."""
    fewest, most = settings.replicas
    gpus = settings.gpus_per_replica or 0.0
    device = settings.device if settings.device != "auto" else ("cuda" if gpus else "cpu")
    deployment = serve.deployment(WorldReplica).options(
        name=DEPLOYMENT,
        num_replicas=fewest if fewest == most else None,
        autoscaling_config=None if fewest == most else _autoscaling(settings),
        max_ongoing_requests=UNLIMITED,
        max_queued_requests=-1,
        ray_actor_options={"num_cpus": settings.cpus_per_replica, "num_gpus": gpus},
        health_check_period_s=2.0,
        health_check_timeout_s=30.0,
        graceful_shutdown_timeout_s=30.0,  # streams leave by themselves; what is left is then cut
        max_constructor_retry_count=3,
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    config = replace(
        config or ReplicaConfig(), device=device, capacity=settings.lanes_per_replica, compiled=settings.compiled
    )
    return deployment.bind(folder, store_url, config, metrics)


def _autoscaling(settings: ReplicaSettings) -> AutoscalingConfig:
    """By open streams, which are sessions. Up within seconds; down late, because it cuts streams."""
    fewest, most = settings.replicas
    return AutoscalingConfig(
        min_replicas=fewest,
        initial_replicas=fewest,
        max_replicas=most,
        target_ongoing_requests=settings.sessions_per_replica,
        metrics_interval_s=1.0,
        look_back_period_s=3.0,
        upscale_delay_s=2.0,
        downscale_delay_s=120.0,
    )


class Fleet:
    """Worlds served by a running cluster."""

    def __init__(self, cluster: Cluster, store_url: str, settings: ReplicaSettings, worlds_expected: int = 1) -> None:
        assert cluster.folder is not None
        self.cluster = cluster
        self.store_url = store_url
        self.settings = replace(settings, gpus_per_replica=_gpu_share(settings, worlds_expected))
        self._token = new_token()  # of the service itself, when it looks whether its worlds answer
        self.announcements = cluster.folder / "metrics"
        self.announcements.mkdir(exist_ok=True)
        self._folders: dict[str, list[str]] = {}  # of what was deployed, by name, the newest last
        self.metrics = FleetMetrics(lambda: [replica.metrics for replica in self.replicas()])

    def deploy(self, folder: Path | str, replicas: tuple[int, int] | None = None) -> WorldSpec:
        """Serves the folder's world; when clients reach it, an older version of the same name takes no more sessions.

        Sessions of the version before go on in it, on the new replicas; those of still older ones end (ModelRetired).

        `replicas` is for this world alone.

        Raises CorruptCheckpoint, UnknownFamily, or InternalError with the reason that its replicas did not start.
        """
        folder = Path(folder).resolve()
        spec, _ = checkpoint.describe(folder)
        metrics = MetricsConfig(folder=str(self.announcements))
        settings = self.settings if replicas is None else replace(self.settings, replicas=replicas)
        doors = self.cluster.config
        before = [former for former in self._folders.get(spec.name, ()) if former != str(folder)]
        config = ReplicaConfig(
            tenants=doors.tenants,
            operator=hash_line(self._token),
            monitor=doors.monitor,
            formers=tuple(before[-settings.former_versions :]) if settings.former_versions else (),
        )
        application = world_application(str(folder), self.store_url, settings, metrics, config)
        try:
            serve.run(application, name=spec.name, route_prefix=f"/{spec.name}")
        except RuntimeError as error:
            raise InternalError(f"world {spec.full_name} could not be started: {_reason(spec.name, error)}") from error
        self._folders[spec.name] = [*before, str(folder)]
        self._wait_until_reached(spec, settings.replicas[0])
        return spec

    def remove(self, world: str) -> None:
        """Stops serving a world; its sessions end."""
        serve.delete(world)
        self._folders.pop(world, None)

    def replicas(self) -> list[Announcement]:
        """The replicas that are up."""
        return announced(self.announcements)

    def serve_metrics(self, port: int) -> MetricsServer:
        """One page with the metrics of every replica; port 0 takes a free one."""
        return start_http(self.metrics.registry, port, self.cluster.config.host)

    def _wait_until_reached(self, spec: WorldSpec, replicas: int) -> None:
        """Until the front door leads to so many replicas of this version: HAProxy hears of them a moment later."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            ids = [r.replica for r in self.replicas() if (r.world, r.version) == (spec.name, spec.version)]
            up = replicas_up(self.cluster.haproxy_sockets)
            reached = [replica for replica in ids if any(name.endswith(replica) for name in up)]
            found = version_served(self.cluster.inner_address, spec.name, self._token)
            if len(reached) >= replicas and found == spec.version:
                return
            if time.monotonic() > deadline:
                raise InternalError(
                    f"world {spec.full_name} was deployed, but {len(reached)} of {replicas} replicas are reached at "
                    f"{self.cluster.address}, where {found or 'nobody'} answers"
                )
            time.sleep(0.1)


def _gpu_share(settings: ReplicaSettings, worlds: int) -> float:
    """What each replica gets of the cluster's GPUs."""
    gpus = float(ray.cluster_resources().get("GPU", 0.0))
    if settings.device == "cpu":
        return 0.0
    if gpus == 0.0:
        if settings.device == "cuda" or settings.gpus_per_replica:
            raise ConfigError("a GPU was asked for, but Ray finds none here; use --device cpu", key="device")
        return 0.0
    if settings.gpus_per_replica is not None:
        return settings.gpus_per_replica
    return max(0.01, int(100 * min(1.0, gpus / (max(1, worlds) * settings.replicas[1]))) / 100)


def _reason(application: str, error: RuntimeError) -> str:
    """The last line of what Serve says about an application that failed: the exception of the replica's constructor."""
    status = serve.status().applications.get(application)
    messages: Sequence[str] = [d.message for d in status.deployments.values()] if status else []
    lines = [line.strip() for line in "\n".join(messages or [str(error)]).splitlines() if line.strip()]
    return lines[-1] if lines else str(error)
