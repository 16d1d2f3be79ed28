"""Who may come in: the tenants file, and the tenant whose token a call carries. Knows no gRPC and stores no token.

    [tenants.lab]
    tokens = ["sha256:9f86d081..."]     # one, or two while a token is being replaced; `simservice token` makes them
    sessions = 16                       # all quotas are over the whole fleet; one left out: no limit
    lanes = 1024
    steps_per_second = 50000
    monitor = true                      # may read what all tenants report of reality; left out: only its own

The same as JSON in a file that ends in .json. A file that changes is read again; one that has become unusable is
reported in the log, and what was known before goes on.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simservice import config
from simservice.errors import ConfigError, Unauthenticated
from simservice.sessions.quotas import ANYONE, Tenant

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
TOKEN_CHARACTERS = 512  # a longer one is not ours, and not worth hashing
MOST_TOKENS = 2
OPERATOR = Tenant(name="operator", sessions=0, lanes=0)
"""The service itself, when it looks whether its worlds answer. It may list worlds and nothing else."""

MONITOR = Tenant(name="monitor", sessions=8, lanes=512, monitor=True)
"""The service's own monitor."""

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Metadata = Iterable[tuple[str, str | bytes]]


def new_token() -> str:
    """A token of 256 random bits."""
    return f"sim_{secrets.token_urlsafe(32)}"


def hash_line(token: str) -> str:
    """What a tenants file holds of a token. Tokens are random, so one round of SHA-256 cannot be searched back."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class TenantEntry:
    """One table of a tenants file."""

    tokens: tuple[str, ...]
    sessions: int | None = None
    lanes: int | None = None
    steps_per_second: float | None = None
    monitor: bool = False


class Tenants:
    """The tenants of a service; without a file everybody is one anonymous tenant without limits."""

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        operator: str = "",
        monitor: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = None if path is None else Path(path)
        self._own = tuple((known, who) for known, who in ((operator, OPERATOR), (monitor, MONITOR)) if known)
        self._now = now
        self._looked_at = now()
        self._stamp = (0, 0)
        self._known: tuple[tuple[str, Tenant], ...] = ()
        if self.path is not None:
            self._stamp = _stamp(self.path)
            self._known = _read(self.path) + self._own

    def of(self, metadata: Metadata | None) -> Tenant:
        """The tenant that a call comes from; Unauthenticated says what is wrong with its token."""
        if self.path is None:
            return ANYONE
        given = [value for key, value in metadata or () if key == "authorization"]
        if not given:
            raise Unauthenticated("this service asks for a token, and none was sent")
        if len(given) > 1:
            raise Unauthenticated("more than one token was sent")
        text = given[0].decode(errors="replace") if isinstance(given[0], bytes) else given[0]
        scheme, _, token = text.partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(token) <= TOKEN_CHARACTERS:
            raise Unauthenticated("the metadata `authorization` is not 'Bearer TOKEN'")
        self._look()
        presented = hash_line(token)
        found = None
        for known, tenant in self._known:  # all of them, so that the time tells nothing
            if hmac.compare_digest(presented, known):
                found = tenant
        if found is None:
            raise Unauthenticated("the token is not one of this service's")
        return found

    def _look(self) -> None:
        assert self.path is not None
        if self._now() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = self._now()
        try:
            stamp = _stamp(self.path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._known = _read(self.path) + self._own
                log.info("tenants read again from %s", self.path)
        except ConfigError as error:
            log.error("the tenants stay as they were: %s", error)


def _all_hashes(lines: Iterable[str]) -> bool:
    return all(_HASH.fullmatch(line) for line in lines)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"the tenants file {path} cannot be read ({error.strerror})", key="tenants") from error
    return found.st_mtime_ns, found.st_size


def _read(path: Path) -> tuple[tuple[str, Tenant], ...]:
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the tenants file {path} cannot be read ({error})", key="tenants") from error
    tables = found.get("tenants") if isinstance(found, dict) else None
    if not isinstance(tables, dict) or not tables or set(found) != {"tenants"}:
        raise ConfigError(f"{path} must hold tables [tenants.NAME] and nothing else", key="tenants")
    known: dict[str, Tenant] = {}
    for name, table in tables.items():
        tenant, tokens = _tenant(path, name, table)
        for token in tokens:
            if token in known:
                raise ConfigError(f"{path}: {name} and {known[token].name} have the same token", key="tenants")
            known[token] = tenant
    return tuple(known.items())


def _tenant(path: Path, name: str, table: Any) -> tuple[Tenant, tuple[str, ...]]:
    where = f"{path}: tenant {name!r}"
    if not _NAME.fullmatch(name) or name in (OPERATOR.name, MONITOR.name):
        raise ConfigError(f"{where}: a name has 1 to 64 letters, digits, '.', '_' or '-'", key="tenants")
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} is no table", key="tenants")
    lines = table.get("tokens")  # looked at first: what it holds by mistake must not be in a message
    given = [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
    if lines is None or len(given) != len(lines) or not 1 <= len(given) <= MOST_TOKENS or not _all_hashes(given):
        raise ConfigError(f"{where}: tokens holds one or two lines sha256:... of `simservice token`", key="tokens")
    entry = config.build(TenantEntry, dict(table))
    for quota in ("sessions", "lanes", "steps_per_second"):
        value = getattr(entry, quota)
        if value is not None and not 0 < value < 1e15:
            raise ConfigError(f"{where}: {quota} is {value}; take a number above 0, or leave it out", key=quota)
    tenant = Tenant(
        name=name,
        sessions=entry.sessions,
        lanes=entry.lanes,
        steps_per_second=entry.steps_per_second,
        monitor=entry.monitor,
    )
    return tenant, entry.tokens
