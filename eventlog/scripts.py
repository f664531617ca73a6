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

FOLDER = Path(__file__).parent / "lua"


@lru_cache
def source(name: str, folder: Path = FOLDER) -> bytes:
    return (folder / f"{name}.lua").read_bytes()


class Scripts:
    """Calls each script by its hash, and sends its source only if Redis does not know it.

    A script that Redis does not know has not run, so the second call repeats nothing. With a RedisCluster, the keys
    determine the node.
    """

    def __init__(self, redis: Redis, folder: Path = FOLDER) -> None:
        """The script NAME is `folder`/NAME.lua."""
        self._redis = redis
        self._folder = folder
        self._shas: dict[str, str] = {}

    async def run(self, name: str, keys: Sequence[str], *values: str | bytes | int | float) -> Any:
        words = (len(keys), *keys, *values)
        try:
            return await self._execute("EVALSHA", self._sha(name), *words)
        except NoScriptError:
            return await self._execute("EVAL", source(name, self._folder), *words)

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
