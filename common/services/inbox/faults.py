"""The faults that the inbox can inject. The rates apply to each email when its final dot has arrived.

    latency_ms       every reply to a final dot comes this much later, as with a real provider. The email is in the
                     inbox before that reply, so a sender that times out and sends again sends a copy (RFC 1047)
    refuse_rate      the reply is an error with `refuse_code`: 451 (try again later), 550 (never), or 421 (try again
                     later, and the connection is closed). The inbox does not keep the email
    hang_rate        the inbox does not reply, keeps the connection open until the client closes it, and does not keep
                     the email
    lose_reply_rate  the inbox keeps the email and closes the connection before the 250
    greylist_seconds the reply to RCPT is a 450 until this many seconds have passed since the first attempt with the
                     same sender and recipient (greylisting, RFC 6647). A later attempt succeeds, even if
                     greylisting was switched off and on: the inbox remembers the pair until it is emptied
    messages_per_session  after this many emails in one connection, the reply to MAIL is a 452. A new connection may
                     send the same number again. 0: no limit

A rate is a probability from 0 to 1. The inbox applies them in the order refuse, hang, lose the reply: each one applies
to the emails that the ones before it did not affect.
"""

import time
from enum import Enum, auto
from random import Random
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

GREYLIST_PAIRS = 10_000  # beyond this number, the oldest pair is dropped and has to wait again


class Faults(BaseModel):
    """The settings of the faults. All zeros: a server without faults."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    latency_ms: Annotated[int, Field(ge=0, le=600_000)] = 0
    refuse_rate: Rate = 0.0
    refuse_code: Literal[421, 451, 550] = 451
    hang_rate: Rate = 0.0
    lose_reply_rate: Rate = 0.0
    greylist_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    messages_per_session: Annotated[int, Field(ge=0, le=10_000)] = 0


class BadFaults(ValueError):
    """The request for a change is invalid: `field` is the member that is wrong, or "body"."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Fate(Enum):
    """What happens to one email."""

    ACCEPT = auto()
    REFUSE = auto()
    HANG = auto()
    LOSE_REPLY = auto()


class Dial:
    """The faults in force. Pass a seeded `Random` to repeat a run."""

    def __init__(self, random: Random | None = None) -> None:
        self.faults = Faults()
        self.random = random or Random()
        self._first_attempts: dict[tuple[str, str], float] = {}  # of a sender and a recipient: monotonic seconds

    def turn(self, body: bytes) -> None:
        """Merge a JSON object into the faults in force. Raises BadFaults, and then nothing has changed."""
        try:
            members = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadFaults("body", f"not JSON: {error}") from None
        if not isinstance(members, dict):
            raise BadFaults("body", "not a JSON object")
        self.faults = _checked(self.faults.model_dump() | members)

    def forget_attempts(self) -> None:
        """Greylist every sender and recipient again."""
        self._first_attempts.clear()

    def fate(self) -> Fate:
        """Decide by the rates what happens to the next email."""
        faults, chance = self.faults, self.random.random
        if chance() < faults.refuse_rate:
            return Fate.REFUSE
        if chance() < faults.hang_rate:
            return Fate.HANG
        if chance() < faults.lose_reply_rate:
            return Fate.LOSE_REPLY
        return Fate.ACCEPT

    def greylisted(self, sender: str, recipient: str) -> bool:
        """Whether this recipient is refused for now. The first call for a pair starts its waiting time."""
        seconds = self.faults.greylist_seconds
        if not seconds:
            return False
        now = time.monotonic()
        first = self._first_attempts.setdefault((sender, recipient), now)
        if len(self._first_attempts) > GREYLIST_PAIRS:
            del self._first_attempts[next(iter(self._first_attempts))]
        return now - first < seconds


def _checked(members: dict[str, Any]) -> Faults:
    try:
        return Faults.model_validate(members)
    except ValidationError as error:
        [first, *_] = error.errors()
        raise BadFaults(str(first["loc"][0]), first["msg"]) from None
