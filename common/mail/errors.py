"""Why an email could not be sent or handed over, sorted by who can act on it.

The caller's mistakes are `BadEmail`, in common/mail/emails.py.
"""


class SendError(Exception):
    """One attempt to send an email did not end with the server's 250."""


class Refused(SendError):
    """The server said no for good (5xx). Sending it again would get the same answer: give up and say so."""


class Unavailable(SendError):
    """The server does not take this email now (4xx). Try again later, not for ever."""


class Unreachable(Unavailable):
    """No session with the server, or it broke before the email was handed in. No email is at fault: wait for it."""


class SessionLost(Unreachable):
    """The server ended the session before it took the message: nothing has happened, another session may do."""


class TooManySessions(Unreachable):
    """The server greeted with a 421: it accepts no further session for now. The open ones may be well."""


class TimedOut(Unreachable):
    """The limit passed before the email was handed in."""


class LoginFailed(SendError):
    """The server does not take our login. No email is at fault and none should use up attempts: pause and say so."""

    put_off = False
    """The server has not judged the password (454): try again later than after a refusal."""


class InDoubt(SendError):
    """The connection broke, or the limit passed, between the message and the reply: it may have arrived (RFC 1047).

    Trying again may send a second copy, not trying again may lose the email. Copies share their Message-ID.
    """


class NoAnswer(InDoubt):
    """The email was handed over to the master or to Redis, and no answer came: it may still be sent."""


class CannotAccept(Exception):
    """The email could not be handed over and is not accepted: a limit is reached, or the next in line is away."""

    def __init__(self, reason: str, retry_after: int = 1) -> None:
        super().__init__(reason)
        self.retry_after = retry_after  # seconds
