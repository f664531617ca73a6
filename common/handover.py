"""What an error of Redis means for an email that the server tried to hand over."""

from redis.exceptions import AuthenticationError, BusyLoadingError, MaxConnectionsError, ResponseError

from asynckit.connections import NotSent
from asynckit.redis_client import describe
from common.mail.errors import CannotAccept, NoAnswer


def handover_error(*errors: Exception) -> CannotAccept | NoAnswer:
    """Return what the errors of a write and of its repetition mean for the email.

    CannotAccept: Redis certainly does not have the email, because Redis said so or no command reached it. NoAnswer: a
    command was sent and its answer did not come, so Redis may have the email.
    """
    certain = (NotSent, ResponseError, AuthenticationError, BusyLoadingError, MaxConnectionsError)
    if all(isinstance(error, certain) for error in errors):
        return CannotAccept(describe(errors[-1]))
    return NoAnswer(f"{describe(errors[-1])}: the email may still be sent")
