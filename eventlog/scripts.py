"""The Lua scripts of a folder, sent to Redis when it does not know them yet.

A full Redis (`maxmemory`, noeviction) refuses a script's first write if that may need memory, and takes whatever comes
behind another write. History is what fills it, and only what every consumer has done can be trimmed: so the scripts of
consumers begin with a write that changes nothing, or a full log would stay full. Those of producers do not.
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
    """A script that Redis does not know has done nothing, so sending it along once more repeats nothing.

    Works the same with a RedisCluster, which finds the node by the keys.
    """

    def __init__(self, redis: Redis, folder: Path = FOLDER) -> None:
        """`folder` holds the scripts, each in NAME.lua."""
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
        """The same for a thread with a client of its own."""
        words = (len(keys), *keys, *values)
        try:
            return client.execute_command("EVALSHA", self._sha(name), *words)  # type: ignore[no-untyped-call]
        except NoScriptError:
            return client.execute_command("EVAL", source(name, self._folder), *words)  # type: ignore[no-untyped-call]

    def _sha(self, name: str) -> str:
        """Redis's name for a script, which has nothing to do with secrecy."""
        if name not in self._shas:
            self._shas[name] = sha1(source(name, self._folder), usedforsecurity=False).hexdigest()
        return self._shas[name]
