"""What every error has: a status, a word for programs, the details, and its way over the wire and between processes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class SimserviceError(Exception):
    """The root. Catch it to catch everything this project raises on purpose."""

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"
    recoverable: ClassVar[bool] = False

    def __init__(self, message: str, **details: str) -> None:
        super().__init__(message)
        self.details: dict[str, str] = details

    @property
    def retry_after_s(self) -> float | None:
        """When trying again may help; None where nobody knows, or where it never will."""
        try:
            seconds = float(self.details["retry_after_s"])
        except (KeyError, ValueError):
            return None
        return seconds if 0.0 <= seconds < 86_400.0 else None

    @classmethod
    def from_wire(cls, message: str, details: dict[str, str]) -> SimserviceError:
        """The error as the other side raised it."""
        error = cls.__new__(cls)
        SimserviceError.__init__(error, message, **details)
        return error

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (type(self), str(self), self.details))


def _restore(cls: type[SimserviceError], message: str, details: dict[str, str]) -> SimserviceError:
    return cls.from_wire(message, details)


def near_miss(found: str, known: Iterable[str]) -> str:
    """A clause that names what the user may have meant, or what there is: "; did you mean 'x'?"."""
    choices = sorted(known)
    close = difflib.get_close_matches(found, choices, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(choices)}" if choices else "; there are none"


class InvalidInput(SimserviceError):
    code, reason, recoverable = "INVALID_ARGUMENT", "INVALID_INPUT", True

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field=field)
