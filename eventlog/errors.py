"""What a log raises when it cannot do something, on any engine."""

from typing import TypeGuard

from redis.exceptions import DataError, RedisError

from asynckit import redis_client


class LogError(Exception):
    """The server of the log did not answer: it may have executed the request, or not."""


class NotTaken(LogError):
    """The server has certainly not executed the request: there was no connection, or it refused."""


LOG_ERRORS = (RedisError, LogError)
"""RedisError comes from the logs in Redis, LogError from the log in JetStream."""

LOG_CALL_ERRORS = (*LOG_ERRORS, *redis_client.CALL_ERRORS)
"""What a call of a log may raise. The RuntimeError of a handler, however, is a bug of the handler."""


def describe(error: Exception) -> str:
    """The reason in words for a log or an answer."""
    return str(error) if isinstance(error, LogError) else redis_client.describe(error)


def is_redis_failure(error: BaseException) -> TypeGuard[Exception]:
    """Whether Redis is down, full or of the wrong kind. A DataError is a bug in the handler: Redis was not called."""
    return isinstance(error, LOG_ERRORS) and not isinstance(error, DataError)
