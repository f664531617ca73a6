"""The web server's end of its pipe: numbered requests to the master, and their answers."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import orjson

from asynckit.batcher import Batcher
from asynckit.connections import NotSent
from common.mail.emails import Email
from common.mail.errors import CannotAccept, NoAnswer

from .pipe import ChildEnd, Message

ANSWER_SECONDS = 5.0  # how long a request waits for the master, which usually answers in less than a millisecond

NO_ANSWER = f"the master did not answer within {ANSWER_SECONDS:g} s"


class MasterLink(ChildEnd):
    def __init__(self, connection: Connection) -> None:
        super().__init__("web server", connection, self._answered)
        self._numbers = count()
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._put = Batcher(self._put_many)

    async def put(self, email: Email) -> None:
        """Return when the master holds the email. Raises CannotAccept if it does not, NoAnswer if it may hold it."""
        try:
            refusal = await self._put(email.to_json())
        except NotSent as error:
            raise CannotAccept(str(error)) from None
        except TimeoutError:
            raise NoAnswer(f"{NO_ANSWER}: the email may still be sent") from None
        if refusal:
            raise CannotAccept(refusal)

    async def _put_many(self, emails: Sequence[bytes]) -> list[str | None]:
        """For each email None, or why the master does not hold it. Raises TimeoutError to every waiting `put`."""
        kept, reason = await self._ask("put", *map(orjson.Fragment, emails))
        return [*[None] * kept, *[reason] * (len(emails) - kept)]

    async def stats(self) -> dict[str, Any]:
        with _no_answer():
            [stats] = await self._ask("stats")
        return dict(stats)

    async def check_room(self) -> None:
        """Raises CannotAccept if the master could not accept an email now."""
        with _no_answer():
            [reason] = await self._ask("health")
        if reason:
            raise CannotAccept(reason)

    async def _ask(self, kind: str, *fields: object) -> Message:
        number = next(self._numbers)
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        self.pipe.send(kind, number, *fields)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer: Message = await future
                return answer
        finally:
            del self._pending[number]

    def _answered(self, message: Message) -> None:
        _, number, *fields = message
        future = self._pending.get(number)
        if future is not None and not future.done():  # otherwise the request has timed out, perhaps just now
            future.set_result(fields)


@contextmanager
def _no_answer() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise CannotAccept(NO_ANSWER) from None
