"""Which errors allow another attempt."""

from common.mail.errors import InDoubt, LoginFailed, SendError, Unavailable, Unreachable


def concerns_every_email(error: SendError) -> bool:
    """Whether the mail server is at fault and not this email. Then wait for the server, and do not count an attempt."""
    return isinstance(error, (Unreachable, LoginFailed))


def may_retry(error: SendError) -> bool:
    """Whether another attempt can help. In doubt we try again: a copy can be deleted, a lost email is not noticed."""
    return isinstance(error, (Unavailable, InDoubt))
