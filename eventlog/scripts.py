"""Runs the Lua scripts of a folder.

A full Redis (`maxmemory` with noeviction) refuses a script whose first write may need memory, but allows every write
after the first. A full log can be trimmed only when consumers commit, so the scripts of consumers begin with a write
that needs no memory and changes nothing (PERSIST). The scripts of producers do not, so a full Redis refuses new events.
"""

from collections.abc import Awaitable, Sequence
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from typing import Any

import redis as blocking
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from asynckit.connections import WAIT_MS, TooFewReplicas

FOLDER = Path(__file__).parent / "lua"
WRITTEN = "eventlog:written"  # string: how many appends have waited for replicas


@lru_cache
def source(name: str, folder: Path = FOLDER) -> bytes:
    return (folder / f"{name}.lua").read_bytes()


class Scripts:
    """Calls each script by its hash, and sends its source only if Redis does not know it.

    A script that Redis does not know has not run, so the second call repeats nothing. With a RedisCluster, the keys
    determine the node.
    """

    def __init__(self, redis: Redis, folder: Path = FOLDER, ack_replicas: int = 0) -> None:
        """The script NAME is `folder`/NAME.lua; `ack_replicas` is for `run_acknowledged`."""
        self._redis = redis
        self._folder = folder
        self._ack_replicas = ack_replicas
        self._shas: dict[str, str] = {}

    async def run(self, name: str, keys: Sequence[str], *values: str | bytes | int | float) -> Any:
        words = (len(keys), *keys, *values)
        try:
            return await self._execute("EVALSHA", self._sha(name), *words)
        except NoScriptError:
            return await self._execute("EVAL", source(name, self._folder), *words)

    async def run_acknowledged(self, name: str, keys: Sequence[str], *values: str | bytes | int | float) -> Any:
        """The same, but returns when `ack_replicas` replicas have the write. Else raises TooFewReplicas.

        WAIT counts the writes of its own connection, so all go out on one. A script that finds its event there already
        writes nothing; the counter is a write, and WAIT covers all that came before it.
        """
        if not self._ack_replicas:
            return await self.run(name, keys, *values)
        for _ in range(2):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.execute_command("EVALSHA", self._sha(name), len(keys), *keys, *values)
            pipeline.incr(WRITTEN)
            pipeline.execute_command("WAIT", self._ack_replicas, WAIT_MS)
            answer, _, acknowledged = await pipeline.execute(raise_on_error=False)
            if not isinstance(answer, NoScriptError):
                break
            await self._redis.script_load(source(name, self._folder).decode())
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(acknowledged, int) or acknowledged < self._ack_replicas:
            raise TooFewReplicas(self._ack_replicas, acknowledged if isinstance(acknowledged, int) else 0)
        return answer

    def _execute(self, *words: Any) -> Awaitable[Any]:
        reply: Awaitable[Any] = self._redis.execute_command(*words)  # type: ignore[no-untyped-call]
        return reply

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
