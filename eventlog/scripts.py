"""Runs the Lua scripts of a folder.

A full Redis (`maxmemory` with noeviction) refuses a script whose first write may need memory, but allows every write
after the first. A full log can be trimmed only when consumers commit, so the scripts of consumers begin with a write
that needs no memory and changes nothing (PERSIST). The scripts of producers do not, so a full Redis refuses new events.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from typing import Any

import redis as blocking
from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from asynckit.cluster_client import ClusterRedis
from asynckit.connections import WAIT_MS, TooFewReplicas
from asynckit.own_connection import OwnConnection

FOLDER = Path(__file__).parent / "lua"
WRITTEN_SECONDS = 60


@lru_cache
def source(name: str, folder: Path = FOLDER) -> bytes:
    return (folder / f"{name}.lua").read_bytes()


class Scripts:
    """Calls each script by its hash, and sends its source only if Redis does not know it.

    A script that Redis does not know has not run, so the second call repeats nothing. In a cluster, the keys determine
    the node.
    """

    def __init__(self, redis: Redis, folder: Path = FOLDER, ack_replicas: int = 0) -> None:
        """The script NAME is `folder`/NAME.lua; `ack_replicas` is for `run_acknowledged`."""
        self._redis = redis
        self._folder = folder
        self._ack_replicas = ack_replicas
        self._shas: dict[str, str] = {}
        self._idle: list[OwnConnection] = []

    async def run(self, name: str, keys: Sequence[str], *values: str | bytes | int | float) -> Any:
        words = (len(keys), *keys, *values)
        try:
            return await self._execute("EVALSHA", self._sha(name), *words)
        except NoScriptError:
            return await self._execute("EVAL", source(name, self._folder), *words)

    async def _execute(self, *words: Any) -> Any:
        if isinstance(self._redis, ClusterRedis):  # it finds the node
            return await self._redis.execute_command(*words)
        connection = self._idle.pop() if self._idle else OwnConnection(self._redis)
        try:
            [answer] = await connection.send([pack_command(words)])
        finally:
            self._idle.append(connection)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run_acknowledged(self, name: str, keys: Sequence[str], *values: str | bytes | int | float) -> Any:
        """The same, but returns when `ack_replicas` replicas have the write. Else raises TooFewReplicas.

        WAIT counts the writes of its own connection, so all go out on one. A script that finds its event there already
        writes nothing; the SET is a write, and WAIT covers all that came before it.
        """
        if not self._ack_replicas:
            return await self.run(name, keys, *values)
        words = (len(keys), *keys, *values)
        [answer] = await self._acknowledged(keys[0], ("EVALSHA", self._sha(name), *words))
        if isinstance(answer, NoScriptError):
            [answer] = await self._acknowledged(keys[0], ("EVAL", source(name, self._folder), *words))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def acknowledge(self, key: str) -> None:
        """Return when `ack_replicas` replicas have all earlier writes to this key. Else raises TooFewReplicas."""
        if self._ack_replicas:
            await self._acknowledged(key)

    async def _acknowledged(self, key: str, *commands: Sequence[Any]) -> list[Any]:
        """The answers of these commands, which may be exceptions. In a cluster all go to the node of the key."""
        pipeline = self._redis.pipeline(transaction=False)
        for words in commands:
            pipeline.execute_command(*words)
        pipeline.set(written_key(key), 1, ex=WRITTEN_SECONDS)
        pipeline.execute_command("WAIT", self._ack_replicas, WAIT_MS)
        *answers, written, acknowledged = await pipeline.execute(raise_on_error=False)
        if any(isinstance(answer, Exception) for answer in answers):
            return answers
        got = 0 if isinstance(written, Exception) or isinstance(acknowledged, Exception) else int(acknowledged)
        if got < self._ack_replicas:
            raise TooFewReplicas(self._ack_replicas, got)
        return answers

    def run_blocking(self, client: blocking.Redis, name: str, keys: Sequence[str], *values: str | bytes | int) -> Any:
        """Like `run`, for a thread with its own client."""
        words = (len(keys), *keys, *values)
        try:
            return client.execute_command("EVALSHA", self._sha(name), *words)  # type: ignore[no-untyped-call]
        except NoScriptError:
            return client.execute_command("EVAL", source(name, self._folder), *words)  # type: ignore[no-untyped-call]

    def _sha(self, name: str) -> str:
        """Redis identifies a script by its SHA-1 hash, which is not used for security."""
        if name not in self._shas:
            self._shas[name] = sha1(source(name, self._folder), usedforsecurity=False).hexdigest()
        return self._shas[name]


def written_key(key: str) -> str:
    """In the slot of this key. A string that expires: written before each WAIT."""
    return f"eventlog:written:{key[key.index('{') : key.index('}') + 1]}"
