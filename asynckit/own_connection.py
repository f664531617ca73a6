"""A connection for Lua scripts: it sends many calls in one write, with one time limit for all answers.

Each command of redis-py goes through the connection pool and the retry code, and has a time limit of its own. This
takes more time than a short script.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from asynckit.connections import ANSWER_SECONDS


class OwnConnection:
    """One connection of the client's pool, kept until the client is closed. Use it for one `send` at a time."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool
        self._connection: Any = None

    async def send(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed commands and return their answers; an error of Redis is an answer. It retries nothing.

        Raises RedisError or RuntimeError when the connection fails or an answer does not come in time.
        """
        connection = await self._connected()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await connection.send_packed_command(commands)
                return [await _answer(connection) for _ in commands]
        except BaseException as error:
            await connection.disconnect(nowait=True)  # an answer may still arrive
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("no answer") from None
            raise

    async def _connected(self) -> Any:
        connection = self._connection
        if connection is None:
            connection = self._connection = await self._pool.get_connection()
            connection.socket_timeout = None
        elif connection.is_connected and await connection.can_read():  # the other side has closed it
            await connection.disconnect(nowait=True)
        return connection


async def _answer(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
