"""Decides on which address and port a service may listen, before anything is started."""

from __future__ import annotations

import socket

from simservice.errors import PortInUse
from simservice.serving.settings import check_plaintext


def check_address(host: str, port: int, insecure: bool) -> int:
    """The port to listen on (a free one for 0). PortInUse; ConfigError for plaintext on a public address."""
    check_plaintext(host, insecure)
    return free_port(host, port)


def free_port(host: str = "127.0.0.1", port: int = 0) -> int:
    """The port, if nobody listens there, or a free one for 0; PortInUse otherwise."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise PortInUse(f"{host}:{port}") from error
        return int(probe.getsockname()[1])
