"""Several web server processes of one strategy on one port: the one that answers `/stats` adds up the counts of all.

`make run-5 SERVERS=2` starts them and names a folder for them. Each server listens there on a Unix socket, NAME.sock,
and answers each connection with its own figures, one JSON object, and closes it. A socket on which no process listens
belongs to a server that was killed.

If one of them does not answer, for example because it is frozen, the sums are unknown: `/stats` then has null.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from asynckit.log_limit import OncePerSecond
from common.http.metrics import COUNTERS, Stats

ANSWER_SECONDS = 1.0
ADDED_UP = (*COUNTERS, "waiting", "in_flight")
HIGHEST = ("oldest_wait_seconds", "login_failed")  # the reason for a failed login is the same in all of them

SHARES_PORT = web.AppKey("shares_port", bool)
"""Whether the application's server shares its port with other servers (SO_REUSEPORT)."""

_log = OncePerSecond(logging.getLogger(__name__))


class Siblings:
    """The servers of one strategy: `own()` returns the figures of this process."""

    def __init__(self, folder: Path, own: Callable[[], Awaitable[Stats]]) -> None:
        self._folder = folder
        self._own = own
        self._name = str(os.getpid())
        self._path = folder / f"{self._name}.sock"
        self._server: asyncio.Server | None = None

    async def listen(self, _: web.Application) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, self._path)

    async def close(self, _: web.Application) -> None:
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(orjson.dumps(await self._own()))
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def figures(self) -> dict[str, Stats | None]:
        """What each server process counted, by its process id; None for one that did not answer in time."""
        names = sorted({path.stem for path in self._folder.glob("*.sock")} | {self._name})
        answers = await asyncio.gather(*[self._ask(name) for name in names])
        return {name: stats for name, (listens, stats) in zip(names, answers, strict=True) if listens}

    async def _ask(self, name: str) -> tuple[bool, Stats | None]:
        """Whether this server listens, and its figures."""
        if name == self._name:
            return True, await self._own()
        path = self._folder / f"{name}.sock"
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return True, await _read(path)
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)  # it was killed
            return False, None
        except (TimeoutError, OSError, ValueError):
            _log.warning("server process %s did not report its counts within %g s", name, ANSWER_SECONDS)
            return True, None


async def _read(path: Path) -> Stats:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        figures: Stats = orjson.loads(await reader.read())
        return figures
    finally:
        writer.close()


def total(figures: Sequence[Stats | None]) -> Stats:
    """The figures of all servers: sums, or the highest; null if one of them is unknown."""
    known = [stats for stats in figures if stats is not None]
    names = dict.fromkeys(name for stats in known for name in stats)
    return {name: _combined(name, [stats.get(name) if stats else None for stats in figures]) for name in names}


def _combined(name: str, values: Sequence[Any]) -> Any:
    if None in values:
        return None
    if name in ADDED_UP:
        return sum(values)
    return max(values, key=lambda value: (isinstance(value, str), value)) if name in HIGHEST else values[0]
