"""Errors of uploaded policies."""

from __future__ import annotations

from simservice.errors.root import InvalidInput, SimserviceError


class InvalidPolicy(InvalidInput):
    reason = "INVALID_POLICY"

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__("policy", f"{found}; {remedy}")


class UnknownPolicy(SimserviceError):
    code, reason, recoverable = "NOT_FOUND", "UNKNOWN_POLICY", True

    def __init__(self, content_hash: str) -> None:
        super().__init__(
            f"no policy {content_hash[:12]}… is known: it has expired, gave way to newer ones, or was never put; put "
            "it again, whole",
            policy=content_hash[:64],
        )


class PolicyQuarantined(SimserviceError):
    code, reason, recoverable = "FAILED_PRECONDITION", "POLICY_QUARANTINED", True

    def __init__(self, content_hash: str, problem: str) -> None:
        super().__init__(
            f"policy {content_hash[:12]}… is run no more here, because {problem}; put one that is smaller or other",
            policy=content_hash[:64],
        )


class PolicyLimitExceeded(SimserviceError):
    code, reason, recoverable = "RESOURCE_EXHAUSTED", "POLICY_LIMIT", True

    def __init__(self, what: str, *, found: float | str, most: float, remedy: str, retry_after_s: float = 0.0) -> None:
        named = found if isinstance(found, str) else f"{found:,}"
        hint = {"retry_after_s": f"{retry_after_s:.3f}"} if retry_after_s else {}
        super().__init__(
            f"policy: {what}: {named}, and at most {most:,} are taken; {remedy}",
            limit=what,
            found=str(found),
            most=str(most),
            **hint,
        )
