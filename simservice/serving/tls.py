"""Certificates of the front door, read and checked before anything listens. Knows no gRPC and no HAProxy."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from simservice.errors import ConfigError
from simservice.serving.settings import DoorSettings


@dataclass(frozen=True)
class TlsFiles:
    """PEM bytes; with `client_ca` only clients with a certificate of that authority come in."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


def read_tls(doors: DoorSettings) -> TlsFiles | None:
    """What the settings name, or None for plaintext; ConfigError names the file that is missing or does not fit."""
    if doors.tls_cert is None or doors.tls_key is None:
        if doors.tls_cert or doors.tls_key or doors.tls_client_ca:
            raise ConfigError("TLS needs both --tls-cert and --tls-key; --tls-client-ca goes with them", key="tls_cert")
        return None
    files = TlsFiles(
        _read(doors.tls_cert, "tls_cert"),
        _read(doors.tls_key, "tls_key"),
        None if doors.tls_client_ca is None else _read(doors.tls_client_ca, "tls_client_ca"),
    )
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(doors.tls_cert, doors.tls_key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{doors.tls_cert} and {doors.tls_key} are no certificate and key in PEM that belong together ({error})",
            key="tls_cert",
        ) from error
    if doors.tls_client_ca is not None:
        try:
            context.load_verify_locations(doors.tls_client_ca)
        except (OSError, ValueError) as error:
            problem = f"{doors.tls_client_ca} holds no certificate authority in PEM ({error})"
            raise ConfigError(problem, key="tls_client_ca") from error
    return files


def _no_password() -> str:
    raise ValueError("the key is encrypted; the service cannot ask for its password")


def _read(path: str, key: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", key=key) from error
