"""The outbox: a picture's row and its job are two writes, in two systems, and a process can be killed between them.

So the transaction that writes the row also writes the job into the table `outbox`. The relay puts it into the queue,
and then deletes it there. Killed between these two, it puts the job into the queue a second time: a job may come twice,
and is never lost.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from asynckit.log_limit import OncePerSecond

from .database import DOWN, Pool, describe

ORDER_A_JOB = "INSERT INTO outbox (picture, upload) VALUES ($1, $2)"
LOOK_SECONDS = 0.5  # other processes write into the outbox, too
AT_A_TIME = 100

log = OncePerSecond(logging.getLogger(__name__))


class NotEnqueued(Exception):
    """The queue does not have the job, or did not say so."""


@dataclass(frozen=True)
class Order:
    """One row of the outbox, which becomes one job."""

    id: UUID
    picture: UUID
    upload: UUID

    def arguments(self) -> dict[str, str]:
        return {"picture": str(self.picture), "upload": str(self.upload)}


Send = Callable[[Order], Awaitable[None]]
"""Puts a job into the queue. When it returns, the job is there. Raises NotEnqueued."""


class Relay:
    def __init__(self, pool: Pool, send: Send) -> None:
        self._pool = pool
        self._send = send
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There is a new row in the outbox."""
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled. During an outage of the database or of the queue the rows wait."""
        while True:
            self._wake.clear()
            try:
                full = await self.move() == AT_A_TIME
            except DOWN as error:
                full = False
                log.warning("the outbox waits: %s", describe(error))
            except NotEnqueued as error:
                full = False
                log.warning("the outbox waits: the queue: %s", error)
            if not full:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), LOOK_SECONDS)

    async def move(self) -> int:
        """Move the oldest rows into the queue; returns how many."""
        async with self._pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(
                "SELECT id, picture, upload FROM outbox ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED", AT_A_TIME
            )
            for row in rows:
                await self._send(Order(**row))
            await connection.execute("DELETE FROM outbox WHERE id = ANY($1)", [row["id"] for row in rows])
        return len(rows)
