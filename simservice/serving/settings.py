"""What the operator of a service may choose: where it listens, how many replicas, on which device. Knows no Ray."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from simservice.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]

GRPC_EXPERIMENTS = "-event_engine_listener"
"""For a server's environment before grpc is imported: its older listener wakes one thread less for each message."""

MAX_MESSAGE_BYTES = 64 * 2**20
"""Of one message, either way."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True)
class ReplicaSettings:
    """Of each replica of each world."""

    lanes_per_replica: int = 4096  # fewer where the device has no memory for them

    replicas: tuple[int, int] = (1, 1)  # fewest, most; open sessions decide between them
    sessions_per_replica: int = 32  # open sessions one replica should have before another is added
    former_versions: int = 1  # versions before the served one that replicas hold while sessions of them are open
    device: Device = "auto"
    compiled: bool = False  # torch fuses each world's calls: more steps of large batches, a minute more to start
    gpus_per_replica: float | None = None  # None: shared out evenly where there are GPUs
    cpus_per_replica: float = 0.1  # what Ray reserves; small, so that RLlib's workers fit beside on a small machine

    def __post_init__(self) -> None:
        fewest, most = self.replicas
        if not 1 <= fewest <= most:
            problem = f"replicas must be N or MIN-MAX with 1 <= MIN <= MAX, found {fewest}-{most}"
            raise ConfigError(problem, key="replicas")
        if self.device == "cpu" and self.gpus_per_replica:
            raise ConfigError("gpus_per_replica needs a GPU device, but the device is cpu", key="gpus_per_replica")


@dataclass(frozen=True, kw_only=True)
class DoorSettings:
    """Who comes in, and by which way."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one
    insecure: bool = False  # an open door on an address that other machines can reach
    tls_cert: str | None = None  # PEM files; None: plaintext
    tls_key: str | None = None
    tls_client_ca: str | None = None  # only clients with a certificate of this authority come in
    tenants: str | None = None  # a tenants file; None: everybody is one anonymous tenant without limits
    monitor: str = ""  # the hash of the token of the service's own monitor

    def check_doors(self) -> None:
        """ConfigError for a door that other machines find open, unless that was asked for."""
        if self.host in LOOPBACK or self.insecure:
            return
        if self.tls_cert is None:
            raise ConfigError(
                f"the service would speak plaintext, and {self.host} can be reached from other machines; give "
                "--tls-cert and --tls-key, say --insecure if the network is trusted, or keep --host 127.0.0.1",
                key="host",
            )
        if self.tenants is None and self.tls_client_ca is None:
            raise ConfigError(
                f"whoever reaches {self.host} could use the service; give --tenants or --tls-client-ca, or say "
                "--insecure if everybody there may",
                key="tenants",
            )


@dataclass(frozen=True, kw_only=True)
class ServeConfig(ReplicaSettings, DoorSettings):
    """Of a service on this machine."""

    port: int = 50051  # 0: a free one
    num_cpus: int = field(default_factory=lambda: os.cpu_count() or 1)  # that Ray may hand out
    store_url: str | None = None  # None: REDIS_URL, else an embedded server that ends with the service
    metrics_port: int | None = 0  # one page for all replicas; 0: a free port, None: no page


@dataclass(frozen=True, kw_only=True)
class ClusterWorld(ReplicaSettings):
    """One world on a Ray cluster that runs already: the args of an application in a Serve config file."""

    folder: str  # a checkpoint that every node can read
    store_url: str | None = None  # None: REDIS_URL of the nodes
    metrics_folder: str | None = None  # each replica writes a file_sd target there; None: no metrics
    metrics_listen: str = "127.0.0.1"
    metrics_announce: str = "127.0.0.1"  # how the scraper reaches the node
    tenants: str | None = None  # a tenants file that every node can read; None: everybody is one anonymous tenant
    formers: tuple[str, ...] = ()  # folders of former versions, for the sessions that began in them


def parse_replicas(text: str) -> tuple[int, int]:
    """The bounds in "3" or "1-8"."""
    fewest, dash, most = text.partition("-")
    try:
        bounds = int(fewest), int(most if dash else fewest)
    except ValueError:
        raise ConfigError(f"replicas must be N or MIN-MAX, found {text!r}", key="replicas") from None
    return bounds
