"""Calls the Lua scripts; each one is one state change.

Redis runs a script atomically: no other command runs in between, so a job is never in no place or in two places. Each
file says at its top which keys it gets and what it returns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from asynckit.batcher import Batcher
from asynckit.connections import WAIT_MS, TooFewReplicas
from asynckit.own_connection import OwnConnection

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
        self._scripts = {path.stem: redis.register_script(source(path.stem)) for path in FOLDER.glob("*.lua")}
        self._call: Batcher[Call, Any] = Batcher(self._call_many)
        self._connection = OwnConnection(redis)  # used by one batch at a time

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
        packed = [
            pack_command(("EVALSHA", self._scripts[name].sha, len(keys), *keys, *args)) for name, keys, args in calls
        ]
        wait = self._ack_replicas > 0 and any(call.name in ACKNOWLEDGED for call in calls)
        if wait:
            more: list[Any] = [("INCR", self._written), ("WAIT", self._ack_replicas, WAIT_MS)]
            packed += [pack_command(command) for command in more]
        answers = await self._connection.send(packed)
        if wait:
            [*answers, _, acknowledged] = answers
            self._check_replicas(acknowledged)
        return answers

    def _check_replicas(self, acknowledged: Any) -> None:
        """Check the answer of WAIT."""
        if not isinstance(acknowledged, int) or acknowledged < self._ack_replicas:
            raise TooFewReplicas(self._ack_replicas, acknowledged if isinstance(acknowledged, int) else 0)

    async def _load(self) -> None:
        for script in self._scripts.values():
            await self._redis.script_load(script.script)


def is_lost(error: RedisError) -> bool:
    """Whether a script reports that a lease has ended."""
    return str(error) == "LOST"
