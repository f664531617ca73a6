"""The reasons why an email could not be sent or handed over: one class for each reaction that the error calls for.

The caller's mistakes are `BadEmail`, in common/mail/emails.py.
"""


class SendError(Exception):
    """One attempt to send an email did not end with the server's 250."""


class Refused(SendError):
    """The server refuses this email permanently (5xx). Give up: another attempt would get the same answer."""


class Unavailable(SendError):
    """The server refuses this email temporarily (4xx). Try again later, a limited number of times."""


class Unreachable(Unavailable):
    """No session opened, or it broke before the email was handed in. No email is at fault: wait for the server."""


class SessionLost(Unreachable):
    """The server ended the session before it took the message. Nothing was sent; another session may work."""


class TooManySessions(Unreachable):
    """The server greeted with a 421: it accepts no further session for now. The open sessions may still work."""


class TimedOut(Unreachable):
    """The limit passed before the email was handed in."""


class LoginFailed(SendError):
    """The server refuses our login. No email is at fault and none should use up attempts: pause and log the reason."""

    put_off = False
    """The server has not judged the password (454): try again later than after a refusal."""


class InDoubt(SendError):
    """The connection broke, or the limit passed, between the message and its reply (RFC 1047).

    The email may have arrived. Another attempt may send a second copy; without one, the email may be lost. Copies have
    the same Message-ID.
    """


class NoAnswer(InDoubt):
    """The email was handed over to the master or to Redis, but the answer did not come: it may still be sent."""


class CannotAccept(Exception):
    """The email is not accepted, because a limit is reached or the process that should take it cannot be reached."""

    retry_after = 1
    """Seconds, for the header of the answer."""
