"""Pages that Prometheus reads: one registry over HTTP, and all replicas of a fleet on one page."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from wsgiref.simple_server import WSGIServer

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from simservice.errors import PortInUse
from simservice.telemetry.names import REPLICA_UP

SCRAPE_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Target:
    """One replica's metrics page and the labels that tell it from the others."""

    url: str
    world: str
    replica: str


class FleetMetrics:
    """All replicas' metrics on one page, each series with its replica's label; read anew at every scrape."""

    def __init__(self, targets: Callable[[], Sequence[Target]]) -> None:
        self.targets = targets
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Reads every target at the same time; one that cannot be read shows as `simservice_replica_up 0`."""
        targets = self.targets()
        families: dict[str, Metric] = {}
        up = GaugeMetricFamily(REPLICA_UP.name, REPLICA_UP.help, labels=(*REPLICA_UP.labels, "replica"))
        with ThreadPoolExecutor(max_workers=max(1, min(16, len(targets)))) as pool:
            for target, page in zip(targets, pool.map(_read_page, targets), strict=True):
                up.add_metric((target.world, target.replica), float(page is not None))
                for family in text_string_to_metric_families(page or ""):
                    merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    for sample in family.samples:
                        labels = {**sample.labels, "replica": target.replica}
                        merged.samples.append(sample._replace(labels=labels))
        yield up
        yield from families.values()


class MetricsServer:
    """Serves one registry's page over HTTP from a thread of its own."""

    def __init__(self, server: WSGIServer, thread: threading.Thread, host: str) -> None:
        self._server = server
        self._thread = thread
        self.port = server.server_port
        self.url = f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stops answering and frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_http(registry: CollectorRegistry, port: int = 0, host: str = "127.0.0.1") -> MetricsServer:
    """Serves a registry at http://host:port/metrics; port 0 takes a free one. PortInUse when somebody listens there."""
    try:
        server, thread = prometheus_client.start_http_server(port, host, registry)
    except OSError as error:
        raise PortInUse(f"{host}:{port}") from error
    return MetricsServer(server, thread, host)


def exposition(registry: CollectorRegistry) -> str:
    """The page as text, for reports and tests."""
    return generate_latest(registry).decode()


def _read_page(target: Target) -> str | None:
    try:
        with urllib.request.urlopen(target.url, timeout=SCRAPE_TIMEOUT_S) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return None
