"""Which errors allow another attempt."""

from common.mail.errors import InDoubt, LoginFailed, SendError, Unavailable, Unreachable


def concerns_every_email(error: SendError) -> bool:
    """Whether the mail server is the matter and not this email: wait for it, and count no attempt."""
    return isinstance(error, (Unreachable, LoginFailed))


def may_retry(error: SendError) -> bool:
    """Whether another attempt can help. In doubt counts as yes: a copy can be seen and deleted, a lost email cannot."""
    return isinstance(error, (Unavailable, InDoubt))
