"""The places for sends: one for each session that the pool may have. Further sends wait, in order."""

import asyncio
import logging
from collections import deque
from typing import NamedTuple

from common.mail.attempt import Attempt
from common.mail.errors import SendError
from common.mail.smtp_session import SmtpSession

GROW_SECONDS = 30.0  # after the server has refused a session: how long until the pool tries to open another one
BEHIND_SECONDS = 1.0  # how long an email waits for the answer to the one before it, if another session is free

log = logging.getLogger(__name__)

Turn = asyncio.Future[SmtpSession | None]


class _Behind(NamedTuple):
    """An email waits, and its envelope was sent ahead in this session, with the message of the email before it."""

    turn: Turn
    before: Attempt
    session: SmtpSession
    since: float  # loop time, seconds


class Places:
    def __init__(self, count: int) -> None:
        self.withheld = 0
        """Places of sessions that the server has refused."""
        self._free = count
        self._waiting: deque[tuple[Attempt, Turn]] = deque()
        self._behind: dict[Attempt, _Behind] = {}  # oldest first
        self._growing: asyncio.TimerHandle | None = None
        self._freeing: asyncio.TimerHandle | None = None

    def close(self) -> None:
        for timer in (self._growing, self._freeing):
            if timer is not None:
                timer.cancel()

    def take_free(self) -> bool:
        """Take a place if one is free."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    async def take(self, attempt: Attempt) -> SmtpSession | None:
        """Wait for a place. Returns the session in which the envelope was sent ahead, if it was."""
        if self.take_free():
            return None
        turn: Turn = asyncio.get_running_loop().create_future()
        self._waiting.append((attempt, turn))
        try:
            return await turn
        except asyncio.CancelledError:
            self._withdraw(attempt, turn)
            raise

    def give_back(self) -> None:
        if next_up := self._pop():
            next_up[1].set_result(None)
        else:
            self._free += 1
            self._watch()

    def withhold(self, error: SendError) -> None:
        """Do not give a place back for now: the server accepts no more sessions."""
        if not self.withheld:
            log.warning("the mail server limits the number of sessions: %s", error)
        self.withheld += 1
        if self._growing is None:
            self._growing = asyncio.get_running_loop().call_later(GROW_SECONDS, self.grow)

    def grow(self) -> None:
        """Add a place: the next send that finds no idle session tries to open one."""
        self.withheld -= 1
        self.give_back()
        again = self.withheld > 0
        self._growing = asyncio.get_running_loop().call_later(GROW_SECONDS, self.grow) if again else None

    def choose_next(self, before: Attempt, session: SmtpSession) -> Attempt | None:
        """The email that has waited longest, if its envelope may be sent ahead in this session."""
        next_up = self._pop()
        if next_up is None:
            return None
        attempt, turn = next_up
        if not session.can_take(attempt):
            self._waiting.appendleft(next_up)
            return None
        self._behind[attempt] = _Behind(turn, before, session, asyncio.get_running_loop().time())
        return attempt

    def pass_on(self, before: Attempt) -> None:
        """Give the place of this email to the next one if its envelope was sent ahead; otherwise give it back."""
        behind = self._behind.get(before.next) if before.next else None
        if before.next is None or behind is None or behind.turn.cancelled():
            self.give_back()
        else:
            del self._behind[before.next]
            behind.turn.set_result(behind.session)

    def send_back(self, before: Attempt) -> None:
        """The session has ended: an email whose envelope was sent ahead with this one waits for another session."""
        if before.next in self._behind:
            self._waiting.appendleft((before.next, self._leave(before.next)))

    def _pop(self) -> tuple[Attempt, Turn] | None:
        """The email whose turn it is: one that has been behind another for too long, or else the next in order."""
        oldest = next(iter(self._behind), None)
        too_old = asyncio.get_running_loop().time() - BEHIND_SECONDS
        if oldest is not None and self._behind[oldest].since < too_old:
            self._waiting.appendleft((oldest, self._leave(oldest)))
        while self._waiting:
            attempt, turn = self._waiting.popleft()
            if not turn.cancelled():  # if it is, its caller notices in a moment
                return attempt, turn
        return None

    def _leave(self, attempt: Attempt) -> Turn:
        """Give up an envelope that was sent ahead. The server has no message to it, so another session can take it."""
        behind = self._behind.pop(attempt)
        behind.before.next = None
        if attempt.envelope is not None:
            behind.session.abandon(attempt.envelope)
            attempt.envelope = None
        return behind.turn

    def _withdraw(self, attempt: Attempt, turn: Turn) -> None:
        """The caller no longer waits."""
        if not turn.cancelled():  # it got its place in the same tick
            if session := turn.result():
                session.abort()
            self.give_back()
        elif attempt in self._behind:
            self._leave(attempt)
        elif (attempt, turn) in self._waiting:
            self._waiting.remove((attempt, turn))

    def _watch(self) -> None:
        """As long as places are free, check the emails that wait behind another one."""
        if self._free and self._behind and self._freeing is None:
            self._freeing = asyncio.get_running_loop().call_later(BEHIND_SECONDS, self._free_those_behind)

    def _free_those_behind(self) -> None:
        self._freeing = None
        while self._free and (next_up := self._pop()):
            self._free -= 1
            next_up[1].set_result(None)
        self._watch()
