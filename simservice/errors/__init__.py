"""Every error a user can meet, one class each; the message says what was found and what to do next.

    SimserviceError
    ├── InvalidInput            INVALID_ARGUMENT     a field of a request or an argument is wrong; nothing was done
    │   ├── UnsupportedSpace                         a space this part cannot carry
    │   └── InvalidPolicy                            a policy that cannot be run, or not in this world
    ├── ConfigError             INVALID_ARGUMENT     a key or value of the configuration
    ├── Unauthenticated         UNAUTHENTICATED      no token, or none that this service knows
    ├── UnknownWorld            NOT_FOUND            no such world is served here
    ├── UnknownFamily           NOT_FOUND            no such family is installed
    ├── UnknownEnvironment      NOT_FOUND            no such Gymnasium id
    ├── MissingDataset          NOT_FOUND            no such dataset
    ├── UnknownSession          NOT_FOUND            no session with this token
    ├── UnknownPoint            NOT_FOUND            no such saved point in the session
    ├── UnknownPolicy           NOT_FOUND            no such policy of this tenant
    ├── PolicyQuarantined       FAILED_PRECONDITION  the policy failed while it was run; it is run no more
    ├── SessionClosed           FAILED_PRECONDITION  the session was closed; open a new one
    ├── SequenceGap             FAILED_PRECONDITION  a request came out of order
    ├── NeedsReset              FAILED_PRECONDITION  a lane was stepped that must be reset first
    ├── ModelRetired            FAILED_PRECONDITION  the session's world version is no longer served
    ├── SessionQuarantined      FAILED_PRECONDITION  bringing the session back ended one process after another
    ├── SessionFenced           ABORTED              another replica or stream took the session over
    ├── CapacityExhausted       RESOURCE_EXHAUSTED   no lanes left
    ├── QuotaExceeded           RESOURCE_EXHAUSTED   the tenant has used what it may use
    ├── PointsExhausted         RESOURCE_EXHAUSTED   the session holds all the saved points it may
    ├── PolicyLimitExceeded     RESOURCE_EXHAUSTED   a policy is too large, too slow, or one too many
    ├── RolloutLimitExceeded    RESOURCE_EXHAUSTED   a rollout is longer, wider or larger than the service plays
    ├── RealStepBudgetExceeded  RESOURCE_EXHAUSTED   more real steps were asked for than the budget allows
    ├── RealEnvironmentFailed   UNAVAILABLE          the real environment raised, crashed or did not answer
    ├── CorruptCheckpoint       DATA_LOSS            a world's folder is damaged or not a world
    ├── StoreUnavailable        UNAVAILABLE          the session store cannot be reached
    ├── ServerUnavailable       UNAVAILABLE          nobody answers at the address
    ├── ReplicaDraining         UNAVAILABLE          the process is about to end; another one goes on
    ├── SessionLost             UNAVAILABLE          the session could not be resumed within the client's patience
    ├── PortInUse               UNAVAILABLE          somebody else listens there
    ├── DeadlineExceeded        DEADLINE_EXCEEDED    no answer in time
    └── InternalError           INTERNAL             our fault

`code` is the gRPC status name, `reason` a stable word for programs, `recoverable` says that the failed request changed
nothing and the stream goes on. A client raises the same class with the same message. docs/errors.md is the whole table.
"""

from __future__ import annotations

from collections.abc import Iterable

from simservice.errors.policies import InvalidPolicy as InvalidPolicy
from simservice.errors.policies import PolicyLimitExceeded as PolicyLimitExceeded
from simservice.errors.policies import PolicyQuarantined as PolicyQuarantined
from simservice.errors.policies import UnknownPolicy as UnknownPolicy
from simservice.errors.root import InvalidInput as InvalidInput
from simservice.errors.root import SimserviceError as SimserviceError
from simservice.errors.root import near_miss as near_miss


class UnsupportedSpace(InvalidInput):
    reason = "UNSUPPORTED_SPACE"

    def __init__(self, field: str, kind: str) -> None:
        super().__init__(
            field,
            f"a {kind} space has no fixed shape; worlds take Box, Discrete, MultiDiscrete, "
            "MultiBinary, and Dict or Tuple of these",
        )


class ConfigError(SimserviceError):
    code, reason = "INVALID_ARGUMENT", "INVALID_CONFIG"


class Unauthenticated(SimserviceError):
    code, reason = "UNAUTHENTICATED", "UNAUTHENTICATED"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}; give the token of a tenant of this service as token=... or in SIMSERVICE_TOKEN "
            "(whoever runs the service makes one with: simservice token)"
        )


class UnknownWorld(SimserviceError):
    code, reason = "NOT_FOUND", "UNKNOWN_WORLD"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        name = name if len(name) <= 200 else f"{name[:200]}…"  # a message must fit a header
        super().__init__(f"no world {name!r} is served here{near_miss(name, known)}", world=name)


class UnknownFamily(SimserviceError):
    code, reason = "NOT_FOUND", "UNKNOWN_FAMILY"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"no world family {name!r} is installed{near_miss(name, known)}", family=name)


class UnknownEnvironment(SimserviceError):
    code, reason = "NOT_FOUND", "UNKNOWN_ENVIRONMENT"

    def __init__(self, env_id: str, problem: str) -> None:
        super().__init__(f"Gymnasium cannot make {env_id!r}: {problem}", env_id=env_id)


class MissingDataset(SimserviceError):
    code, reason = "NOT_FOUND", "MISSING_DATASET"

    def __init__(self, dataset: str, where: str, known: Iterable[str] = ()) -> None:
        meant = near_miss(dataset, known).removesuffix("?")
        super().__init__(
            f"no dataset {dataset!r} in {where}{meant}. Record one with: simservice collect ENV",
            dataset=dataset,
        )


class UnknownSession(SimserviceError):
    code, reason = "NOT_FOUND", "UNKNOWN_SESSION"

    def __init__(self, token: str) -> None:
        super().__init__(
            f"no session {token[:8]}… is known: it was closed, has expired, or never was; open a new one",
            session=token[:32],
        )


class UnknownPoint(SimserviceError):
    code, reason, recoverable = "NOT_FOUND", "UNKNOWN_POINT", True

    def __init__(self, point: int) -> None:
        super().__init__(
            f"no point {point} is saved in this session; restore one that save() gave and forget() did not get",
            point=str(point),
        )


class SessionClosed(SimserviceError):
    code, reason = "FAILED_PRECONDITION", "SESSION_CLOSED"

    def __init__(self, what: str = "session") -> None:
        super().__init__(f"the {what} is closed; open a new one (make the environment again)")


class SequenceGap(SimserviceError):
    code, reason = "FAILED_PRECONDITION", "SEQUENCE_GAP"

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(
            f"request number {found} came out of order; the session expects {expected}",
            found=str(found),
            expected=str(expected),
        )


class NeedsReset(SimserviceError):
    code, reason, recoverable = "FAILED_PRECONDITION", "NEEDS_RESET", True

    def __init__(self, lanes: Iterable[int]) -> None:
        named = ", ".join(str(lane) for lane in lanes)
        super().__init__(
            f"environment(s) {named} must be reset before they are stepped: call reset() first, or with "
            "autoreset mode DISABLED reset(options={'reset_mask': mask})"
        )


class ModelRetired(SimserviceError):
    code, reason = "FAILED_PRECONDITION", "MODEL_RETIRED"

    def __init__(self, wanted: str, served: str) -> None:
        super().__init__(
            f"the session began in world {wanted}, which is no longer served (now: {served}); open a new "
            "session to go on in the new version",
            wanted=wanted,
            served=served,
        )


class SessionQuarantined(SimserviceError):
    code, reason = "FAILED_PRECONDITION", "QUARANTINED"

    def __init__(self, token: str, claims: int) -> None:
        super().__init__(
            f"session {token[:8]}… is not brought back any more: {claims} attempts in a row did not come to an end, so "
            "one of its requests may end the process that does it; open a new session, and report what it did last",
            session=token[:32],
            claims=str(claims),
        )


class SessionFenced(SimserviceError):
    code, reason = "ABORTED", "SESSION_FENCED"

    def __init__(self, token: str) -> None:
        super().__init__(f"session {token[:8]}… was taken over by another stream; this one may no longer drive it")


class CapacityExhausted(SimserviceError):
    code, reason, recoverable = "RESOURCE_EXHAUSTED", "CAPACITY", True

    def __init__(self, asked: int, active: int, limit: int, retry_after_s: float | None = None) -> None:
        hint = {} if retry_after_s is None or asked > limit else {"retry_after_s": f"{retry_after_s:.3f}"}
        super().__init__(
            f"{asked} lanes were asked for, but {active} of {limit} are in use; close sessions, ask for "
            "fewer, or add replicas",
            asked=str(asked),
            active=str(active),
            limit=str(limit),
            **hint,
        )


class QuotaExceeded(SimserviceError):
    code, reason, recoverable = "RESOURCE_EXHAUSTED", "QUOTA", True

    def __init__(
        self, tenant: str, quota: str, *, asked: int, active: int, limit: int, retry_after_s: float | None = None
    ) -> None:
        hint = {} if retry_after_s is None else {"retry_after_s": f"{retry_after_s:.3f}"}
        wait = f"wait {retry_after_s:.3g} s, " if hint else ""
        super().__init__(
            f"tenant {tenant!r} asked for {asked} {quota}, but {active} of its {limit} are in use; {wait}"
            "close sessions, or have the quota raised",
            tenant=tenant,
            quota=quota,
            asked=str(asked),
            active=str(active),
            limit=str(limit),
            **hint,
        )


class PointsExhausted(SimserviceError):
    code, reason, recoverable = "RESOURCE_EXHAUSTED", "POINTS", True

    def __init__(self, limit: str, *, asked: int, active: int, most: int) -> None:
        super().__init__(
            f"a session may keep {most} {'saved points' if limit == 'points' else 'bytes of saved points'}; it has "
            f"{active}, and this save needs {asked} more; "
            "forget() points first (one that was restored lately counts for a few requests more)",
            limit=str(most),
            active=str(active),
            asked=str(asked),
            quota=limit,
        )


class RolloutLimitExceeded(SimserviceError):
    code, reason, recoverable = "RESOURCE_EXHAUSTED", "ROLLOUT_LIMIT", True

    def __init__(self, quota: str, *, asked: int, most: int) -> None:
        super().__init__(
            f"a rollout may have {most} {quota}, {asked} were asked for; cut it into several, or leave out of its "
            "answer what is not needed",
            quota=quota,
            asked=str(asked),
            limit=str(most),
        )


class RealStepBudgetExceeded(SimserviceError):
    code, reason = "RESOURCE_EXHAUSTED", "REAL_STEP_BUDGET"

    def __init__(self, asked: int, used: int, budget: int) -> None:
        super().__init__(f"{asked} more real steps were asked for, but {used} of the budget of {budget} are used")


class RealEnvironmentFailed(SimserviceError):
    code, reason = "UNAVAILABLE", "REAL_ENVIRONMENT"

    def __init__(self, env_id: str, problem: str) -> None:
        super().__init__(f"the real environment {env_id} failed ({problem}); see whether it runs by itself")


class CorruptCheckpoint(SimserviceError):
    code, reason = "DATA_LOSS", "CORRUPT_CHECKPOINT"

    def __init__(self, folder: str, problem: str) -> None:
        super().__init__(
            f"{folder} is not a usable world: {problem}. Train it again with: simservice train", folder=folder
        )


class StoreUnavailable(SimserviceError):
    code, reason = "UNAVAILABLE", "STORE_UNAVAILABLE"

    def __init__(self, address: str, problem: str = "no answer") -> None:
        super().__init__(
            f"the session store at {address} cannot be used ({problem}); start Redis or Valkey there, point "
            "REDIS_URL at one, or unset it and install simservice[embedded]",
            address=address,
        )


class ServerUnavailable(SimserviceError):
    code, reason = "UNAVAILABLE", "SERVER_UNAVAILABLE"

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(
            f"no world service answers at {address} ({problem}); check the address, or start one with: "
            "simservice serve DIR",
            address=address,
        )


class ReplicaDraining(SimserviceError):
    code, reason = "UNAVAILABLE", "DRAINING"

    def __init__(self) -> None:
        super().__init__(
            "the process that was asked is about to end; sessions go on in another one: connect again (clients do so "
            "by themselves)"
        )


class SessionLost(SimserviceError):
    code, reason = "UNAVAILABLE", "SESSION_LOST"

    def __init__(self, token: str, patience_s: float, problem: str) -> None:
        super().__init__(
            f"session {token[:8]}… could not be resumed within {patience_s:g} s ({problem}); make the "
            "environment again to begin a new session"
        )


class PortInUse(SimserviceError):
    code, reason = "UNAVAILABLE", "PORT_IN_USE"

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} is in use by another process; stop it, or choose another with --port", address=address
        )


class DeadlineExceeded(SimserviceError):
    code, reason, recoverable = "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", True

    @classmethod
    def not_begun(cls) -> DeadlineExceeded:
        """Of a request that waited longer than whoever asked for it."""
        return cls("the request had not begun when its time was over, so it was not done; send it again")

    @classmethod
    def not_ended(cls) -> DeadlineExceeded:
        """Of a rollout that took longer than whoever asked for it waits."""
        return cls(
            "the rollout had not ended when its time was over, so it was not done; ask for fewer steps or wait longer"
        )


class InternalError(SimserviceError):
    code, reason = "INTERNAL", "INTERNAL"


def error_class(reason: str) -> type[SimserviceError]:
    """The class for a stable reason word; InternalError for one this version does not know."""
    pending: list[type[SimserviceError]] = [SimserviceError]
    while pending:
        cls = pending.pop()
        if cls.reason == reason and cls is not SimserviceError:
            return cls
        pending.extend(cls.__subclasses__())
    return InternalError
