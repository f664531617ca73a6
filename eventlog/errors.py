"""What a log raises when it cannot do what it was asked to, on whatever engine."""

from redis.exceptions import RedisError

from asynckit import redis_client


class LogError(Exception):
    """The server of the log did not answer: it may have done what it was asked to do, or not."""


class NotTaken(LogError):
    """The server has certainly not done it: no connection, or a refusal."""


LOG_ERRORS = (RedisError, LogError)
"""RedisError of the logs in Redis, LogError of the one in JetStream."""

LOG_CALL_ERRORS = (*LOG_ERRORS, *redis_client.CALL_ERRORS)
"""What a call of a log may raise. The RuntimeError of a handler, however, is a bug of the handler."""


def describe(error: Exception) -> str:
    """The reason in words for a log or an answer."""
    return str(error) if isinstance(error, LogError) else redis_client.describe(error)
