"""What a failed task of a watch is counted as."""

from __future__ import annotations

from simservice.errors import (
    CapacityExhausted,
    QuotaExceeded,
    RealEnvironmentFailed,
    RealStepBudgetExceeded,
    ServerUnavailable,
    SessionLost,
    SimserviceError,
    StoreUnavailable,
    UnknownEnvironment,
    UnknownWorld,
)

_REASONS: dict[str, tuple[type[SimserviceError], ...]] = {
    "budget": (RealStepBudgetExceeded,),
    "environment": (RealEnvironmentFailed, UnknownEnvironment),
    "service": (ServerUnavailable, StoreUnavailable, UnknownWorld, CapacityExhausted, QuotaExceeded, SessionLost),
}


def reason_of(error: SimserviceError) -> str:
    """One of names.FAILURES."""
    return next((reason for reason, kinds in _REASONS.items() if isinstance(error, kinds)), "other")
