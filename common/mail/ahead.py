"""Whether envelopes may be sent ahead (see smtp_session.py): the first one shows whether the server can read them.

RFC 2920 allows a client to send MAIL immediately after the end of a message. Some servers that offer PIPELINING discard
what they read there, or close the connection.
"""

import logging

from common.mail.attempt import Attempt
from common.mail.smtp_conversation import Exchange

log = logging.getLogger(__name__)


class Ahead:
    """The first envelope that is sent ahead is a trial: until both emails are done, no other is sent ahead."""

    def __init__(self) -> None:
        self._works = False
        self._fails = False
        self._trial: set[Attempt] = set()

    @property
    def allowed(self) -> bool:
        return not self._fails and (self._works or not self._trial)

    def begin(self, before: Attempt, attempt: Attempt) -> None:
        """The envelope of `attempt` goes ahead, with the message of `before`."""
        attempt.envelope = Exchange(3)
        if not self._works:
            before.on_trial = attempt.on_trial = True
            self._trial |= {before, attempt}

    def worked(self) -> None:
        self._works = True
        for attempt in self._trial:
            attempt.on_trial = False
        self._trial.clear()

    def failed(self, attempt: Attempt, reason: Exception) -> None:
        """The server accepted this email in a new session, after it had refused it when envelopes were sent ahead.

        If sending ahead worked before, the session may have ended for another reason, so the next one is a trial.
        """
        self._works = False
        if attempt.on_trial and not self._fails:
            log.warning("a session failed when an envelope was sent ahead (PIPELINING); this is now off: %s", reason)
            self._fails = True

    def end(self, attempt: Attempt) -> None:
        """This email was sent or given up. If it was on trial, the trial may end without a result."""
        self._trial.discard(attempt)
