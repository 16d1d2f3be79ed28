"""Every error once: what the caller did, which gRPC status and reason it has, what to do. docs/errors.md is made of it.

python -m simservice.protocol.error_table > docs/errors.md
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from simservice import errors

RETRIED = frozenset({"UNAVAILABLE", "CANCELLED", "INTERNAL", "UNKNOWN", "ABORTED", "DEADLINE_EXCEEDED"})
"""Statuses that proxies, dying replicas and cut connections give; with none of our errors beside them, try again."""

BARE: dict[str, type[errors.SimserviceError]] = {
    "NOT_FOUND": errors.UnknownWorld,
    "RESOURCE_EXHAUSTED": errors.InvalidInput,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "PERMISSION_DENIED": errors.Unauthenticated,
}
"""What a client raises for a status that came without one of our errors; InternalError for all others not RETRIED."""


@dataclass(frozen=True)
class Row:
    """One error: what makes it, and what whoever meets it should do."""

    error: type[errors.SimserviceError]
    when: str
    then: str
    on_the_wire: bool = True  # False: raised where it is caught, no call carries it

    @property
    def details(self) -> tuple[str, ...]:
        """The messages of google.rpc that ride in its status."""
        if not self.on_the_wire:
            return ()
        extra = ("BadRequest",) if issubclass(self.error, errors.InvalidInput) else ()
        return ("ErrorInfo", *extra, *(("RetryInfo",) if self.error in RETRY_AFTER else ()))


RETRY_AFTER = frozenset({errors.CapacityExhausted, errors.QuotaExceeded, errors.PolicyLimitExceeded})
"""Errors that may tell when to try again. Without RetryInfo trying again does not help."""

ROWS = (
    Row(errors.InvalidInput, "a field is wrong; its path is told, nothing was done", "correct the field"),
    Row(errors.UnsupportedSpace, "a space without a fixed shape", "take a space of fixed shape"),
    Row(errors.InvalidPolicy, "a policy cannot be run, or not in this world; what was found is told", "correct it"),
    Row(errors.ConfigError, "a key or value of a configuration is wrong", "correct it", False),
    Row(errors.Unauthenticated, "the token is missing or unknown", "give a token of a tenant of this service"),
    Row(errors.UnknownWorld, "nobody serves this world", "take one of the names the message lists"),
    Row(errors.UnknownFamily, "the family is not installed", "install its package", False),
    Row(errors.UnknownEnvironment, "Gymnasium does not know the id", "correct the id", False),
    Row(errors.MissingDataset, "there is no such dataset", "record or download it", False),
    Row(errors.UnknownSession, "closed, expired, another tenant's, or never there", "open a new session"),
    Row(errors.UnknownPoint, "no such saved point, or it was forgotten", "restore one that save() gave"),
    Row(errors.UnknownPolicy, "expired, gave way, another tenant's, or never there", "put it again, whole"),
    Row(errors.PolicyQuarantined, "the policy failed or was too slow while it was run", "put another one"),
    Row(errors.SessionClosed, "it was closed", "open a new session"),
    Row(errors.SequenceGap, "a request came out of order", "send the number the message expects"),
    Row(errors.NeedsReset, "a lane was stepped that must be reset", "reset it"),
    Row(errors.ModelRetired, "the session's world version is gone", "open a new session in the new version"),
    Row(
        errors.SessionQuarantined,
        "bringing the session back ended one process after another",
        "open a new session; report the last request",
    ),
    Row(errors.SessionFenced, "a later stream took the session over", "leave it to that stream"),
    Row(errors.CapacityExhausted, "the replica has too few free lanes", "wait for retry_after_s, or ask for fewer"),
    Row(errors.QuotaExceeded, "the tenant has used what it may use", "wait for retry_after_s, or close sessions"),
    Row(errors.PointsExhausted, "the session keeps all the saved points it may", "forget some"),
    Row(
        errors.PolicyLimitExceeded,
        "a policy is too large or too slow, or too many are being checked",
        "put a smaller one; where it is told, wait for retry_after_s",
    ),
    Row(errors.RolloutLimitExceeded, "a rollout is longer, wider or larger than the service plays", "ask for less"),
    Row(errors.RealStepBudgetExceeded, "more real steps than the budget allows", "raise the budget", False),
    Row(errors.RealEnvironmentFailed, "the real environment raised or hangs", "see whether it runs by itself", False),
    Row(errors.CorruptCheckpoint, "the world's folder is damaged", "train or copy it again", False),
    Row(errors.StoreUnavailable, "the server cannot reach its session store", "wait: clients try again by themselves"),
    Row(errors.ServerUnavailable, "nobody answers at the address", "check the address, start the service", False),
    Row(errors.ReplicaDraining, "the process is about to end", "connect again: clients do so by themselves"),
    Row(errors.SessionLost, "the session could not be resumed in time", "make the environment again", False),
    Row(errors.PortInUse, "somebody else listens there", "choose another port", False),
    Row(errors.DeadlineExceeded, "no answer in time", "try again with more time"),
    Row(errors.InternalError, "our fault; the server's log has it under the id", "report it with the id"),
)

HEAD = """# Errors

Made by `python -m simservice.protocol.error_table`; a test keeps it true. A call that fails ends with the gRPC code of
the table; its trailing metadata holds a `google.rpc.Status` (`grpc-status-details-bin`) with an `ErrorInfo` (domain
`{domain}`, the reason, the error's fields as metadata) and what the last column names, and the same as our own `Error`
message (`simservice-error-bin`). An error that changed nothing comes as an `error` reply inside the stream, which goes
on. Python clients raise the class of the table from `simservice.errors`, with the same message and details. Errors
without a gRPC detail never cross the wire.

| class | gRPC code | reason | stream goes on | when | what to do | details |
|---|---|---|---|---|---|---|
"""

TAIL = """
## Statuses without one of our errors

Proxies, cut connections and dying processes give these by themselves.

| gRPC code | what the Python client does |
|---|---|
"""

DOMAIN = "simservice"


def markdown() -> str:
    """The text of docs/errors.md."""
    lines = [
        f"| `{row.error.__name__}` | {row.error.code} | {row.error.reason} "
        f"| {'yes' if row.error.recoverable else 'no'} | {row.when} | {row.then} | {', '.join(row.details) or '-'} |"
        for row in ROWS
    ]
    bare = [f"| {', '.join(sorted(RETRIED))} | connects and asks again within its patience, then `SessionLost` |"]
    bare += [f"| {code} | raises `{cls.__name__}` |" for code, cls in BARE.items()]
    bare.append("| any other | raises `InternalError` |")
    return HEAD.format(domain=DOMAIN) + "\n".join(lines) + "\n" + TAIL + "\n".join(bare) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
