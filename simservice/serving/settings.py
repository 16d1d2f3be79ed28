"""What the operator of a service may choose: where it listens, how many replicas, on which device. Knows no Ray."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from simservice.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True)
class ReplicaSettings:
    """Of each replica of each world."""

    replicas: tuple[int, int] = (1, 1)  # fewest, most; open sessions decide between them
    sessions_per_replica: int = 32  # open sessions one replica should have before another is added
    device: Device = "auto"
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
class ServeConfig(ReplicaSettings):
    """Of a service on this machine."""

    host: str = "127.0.0.1"
    port: int = 50051  # 0: a free one
    insecure: bool = False  # plaintext on an address that other machines can reach
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


def check_plaintext(host: str, insecure: bool) -> None:
    """ConfigError for plaintext on an address that other machines can reach, unless that was asked for."""
    if host not in LOOPBACK and not insecure:
        raise ConfigError(
            f"the service speaks plaintext, and {host} can be reached from other machines; say --insecure if the "
            "network is trusted, or keep --host 127.0.0.1 and put a TLS proxy in front",
            key="host",
        )


def parse_replicas(text: str) -> tuple[int, int]:
    """The bounds in "3" or "1-8"."""
    fewest, dash, most = text.partition("-")
    try:
        bounds = int(fewest), int(most if dash else fewest)
    except ValueError:
        raise ConfigError(f"replicas must be N or MIN-MAX, found {text!r}", key="replicas") from None
    return bounds
