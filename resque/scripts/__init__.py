"""Calls the Lua scripts; each one is one state change.

Redis runs a script atomically: no other command runs in between, so a job is never in no place or in two places. Each
file says at its top which keys it gets and what it returns.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from asynckit.batcher import Batcher
from asynckit.connections import ANSWER_SECONDS, WAIT_MS, TooFewReplicas

FOLDER = Path(__file__).parent
ACKNOWLEDGED = {"enqueue"}


class Call(NamedTuple):
    name: str
    keys: Sequence[str | bytes]
    args: Sequence[Any]


def source(name: str) -> bytes:
    """The source of a script, preceded by the functions that several scripts share."""
    return (FOLDER / "prelude.lua").read_bytes() + (FOLDER / f"{name}.lua").read_bytes()


class Scripts:
    """Calls scripts by name. The calls of one tick of the event loop are sent together, on one connection.

    No call is repeated automatically: a lost answer raises RedisError, and the caller decides. (A script that Redis
    does not know yet has not run, so it is loaded and called again.)
    """

    def __init__(self, redis: Redis, ack_replicas: int = 0, written: str = "") -> None:
        """With `ack_replicas`, a call of ACKNOWLEDGED returns when this number of replicas has the write, or raises
        TooFewReplicas.

        WAIT counts the writes of its own connection. A call that changes nothing (the id is known) is no write, so each
        batch increments the key `written`, and WAIT covers all that came before that.
        """
        self._redis = redis
        self._ack_replicas = ack_replicas
        self._written = written
        self._pool: Any = redis.connection_pool
        self._scripts = {path.stem: redis.register_script(source(path.stem)) for path in FOLDER.glob("*.lua")}
        self._call: Batcher[Call, Any] = Batcher(self._call_many)
        self._connection: Any = None  # used by one batch at a time; the client's pool closes it

    async def __call__(self, name: str, keys: Sequence[str | bytes], *args: str | int | bytes) -> Any:
        return await self._call(Call(name, keys, args))

    async def _call_many(self, calls: Sequence[Call]) -> Sequence[Any]:
        results = await self._send(calls)
        unknown = [number for number, result in enumerate(results) if isinstance(result, NoScriptError)]
        if unknown:
            await self._load()
            again = await self._send([calls[number] for number in unknown])
            for number, result in zip(unknown, again, strict=True):
                results[number] = result
        return results

    async def _send(self, calls: Sequence[Call]) -> list[Any]:
        """Send on our own connection, with one time limit for all calls: redis-py's pipeline takes twice the time."""
        packed = [
            pack_command(("EVALSHA", self._scripts[name].sha, len(keys), *keys, *args)) for name, keys, args in calls
        ]
        wait = self._ack_replicas > 0 and any(call.name in ACKNOWLEDGED for call in calls)
        if wait:
            more: list[Any] = [("INCR", self._written), ("WAIT", self._ack_replicas, WAIT_MS)]
            packed += [pack_command(command) for command in more]
        connection = await self._connected()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await connection.send_packed_command(packed)
                results = [await self._answer(connection) for _ in calls]
                if wait:
                    await self._check_replicas(connection)
                return results
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

    async def _check_replicas(self, connection: Any) -> None:
        """Read the answers of INCR and WAIT."""
        await self._answer(connection)
        acknowledged = await self._answer(connection)
        if not isinstance(acknowledged, int) or acknowledged < self._ack_replicas:
            raise TooFewReplicas(self._ack_replicas, acknowledged if isinstance(acknowledged, int) else 0)

    @staticmethod
    async def _answer(connection: Any) -> Any:
        try:
            return await connection.read_response()
        except ResponseError as error:
            return error

    async def _load(self) -> None:
        for script in self._scripts.values():
            await self._redis.script_load(script.script)


def is_lost(error: RedisError) -> bool:
    """Whether a script reports that a lease has ended."""
    return str(error) == "LOST"
