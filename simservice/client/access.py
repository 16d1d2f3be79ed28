"""How a client shows who it is and knows the service: token and certificates, never in a repr or a log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simservice.errors import InvalidInput

TOKEN_VARIABLE, CA_VARIABLE = "SIMSERVICE_TOKEN", "SIMSERVICE_CA"
CERTIFICATE_VARIABLE, KEY_VARIABLE = "SIMSERVICE_CERT", "SIMSERVICE_KEY"
SECURE_SCHEME, PLAIN_SCHEME = "grpcs://", "grpc://"
TLS_PARTS = ("ca", "certificate", "key")

Tls = bool | str | Mapping[str, str] | None
"""True, the path of a CA file, or a mapping of `ca`, `certificate` and `key` to paths; None: as the address says."""


class Token(str):
    """A token that does not show itself where the arguments it came in are printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class Access:
    """What a connection is made with."""

    token: str = field(default="", repr=False)
    secure: bool = False
    ca: str | None = None  # of a PEM file; None: the authorities that gRPC trusts
    certificate: str | None = None  # the client's own, where the service asks for one
    key: str | None = field(default=None, repr=False)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What each call carries."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def read(self, path: str | None) -> bytes | None:
        """A PEM file's bytes; InvalidInput when it cannot be read."""
        if path is None:
            return None
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise InvalidInput("tls", f"{path} cannot be read ({error.strerror})") from error


def access_to(address: Any, token: str | None = None, tls: Tls = None) -> tuple[Any, Access]:
    """The bare address and how to come in there. What is not given is taken from SIMSERVICE_TOKEN, _CA, _CERT, _KEY."""
    secure = False
    if isinstance(address, str):
        secure = address.startswith(SECURE_SCHEME)
        address = address.removeprefix(SECURE_SCHEME).removeprefix(PLAIN_SCHEME)
    return address, Access(token=_token(token), **_tls(secure, tls))


def _token(given: str | None) -> str:
    found = os.environ.get(TOKEN_VARIABLE, "") if given is None else given
    if not isinstance(found, str) or not found.isascii() or not found.isprintable() or " " in found:
        raise InvalidInput("token", "it is no token: letters, digits and signs without spaces")  # and not which
    return Token(found)


def _tls(secure: bool, tls: Tls) -> dict[str, Any]:
    if tls is False:
        if secure:
            raise InvalidInput("tls", "tls=False contradicts an address that begins with grpcs://")
        return {}
    if tls is None and not secure:
        return {}
    parts = {"ca": tls} if isinstance(tls, str) else dict(tls) if isinstance(tls, Mapping) else {}
    if unknown := set(parts) - set(TLS_PARTS):
        raise InvalidInput("tls", f"has no part {sorted(unknown)[0]!r}; the parts are {', '.join(TLS_PARTS)}")
    for part, variable in zip(TLS_PARTS, (CA_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE), strict=True):
        if part not in parts and (path := os.environ.get(variable)):
            parts[part] = path
    if ("certificate" in parts) != ("key" in parts):
        raise InvalidInput("tls", "a client's certificate and its key go together")
    return {"secure": True, **parts}
