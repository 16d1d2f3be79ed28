"""Which failures of a connection to Redis are worth another try, and how soon."""

from __future__ import annotations

import ssl

import redis
import redis.exceptions

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.2  # between attempts to connect
REFUSED = (  # what no patience heals
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthorizationError,
    ssl.SSLCertVerificationError,
)
UNREACHED = (redis.ConnectionError, redis.TimeoutError, OSError)


def is_refusal(error: Exception) -> bool:
    """Whether the server refused us, which no patience heals; redis-py wraps what happens while it connects."""
    return any(isinstance(found, REFUSED) for found in (error, error.__cause__, error.__context__))
