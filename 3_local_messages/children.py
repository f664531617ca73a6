"""A child as the master sees it: a process that is started again when it dies, and the pipe to it."""

import asyncio
import logging
import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

from common.processes.pid_files import PidFile
from common.processes.process import lost_output
from common.processes.supervisor import how_it_ended
from common.settings import Settings

from .pipe import Message, PipeEnd

# Spawn everywhere, as on macOS: a fork would copy the master's event loop and sockets into the child.
_spawn = multiprocessing.get_context("spawn")

log = logging.getLogger(__name__)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        lost_output()


class Child:
    """`on_message` is called with each message of the child, `on_died` when the child has died."""

    def __init__(
        self,
        name: str,
        main: Callable[[Settings, Connection], None],
        settings: Settings,
        on_message: Callable[[Message], None],
        on_died: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._main = main
        self._settings = settings
        self._on_message = on_message
        self._on_died = on_died
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: PipeEnd | None = None
        self._pids: PidFile | None = None

    async def start(self) -> None:
        ours, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=self._main, args=(self._settings, theirs), name=self.name)
        self._process.start()
        self._pids = PidFile(self._settings.data_dir, self.name)
        self._pids.add(self._process.pid or 0)
        log.info("the %s @ %s has started", self.name, self._process.pid)
        theirs.close()  # otherwise the pipe would stay open when the child dies, and we would not notice
        self._pipe = await PipeEnd.open(ours, self._receive, self._closed)

    async def check(self) -> None:
        """Start the child again if it has died."""
        assert self._process is not None
        if self._process.is_alive() or self._pipe is not None:  # an open pipe may still hold its last messages
            return
        status = self._process.exitcode or 0
        self.restarts += 1
        log.warning("the %s @ %s %s; starting it again", self.name, self._process.pid, how_it_ended(status))
        await self.start()

    def send(self, *message: object) -> None:
        if self._pipe is not None:
            self._pipe.send(*message)

    async def stop(self, seconds: float) -> None:
        """Tell the child to stop and wait until it has ended; kill it after `seconds`."""
        assert self._process is not None
        self.send("stop")
        if not await self._ended(seconds):
            log.warning("the %s does not stop; killing it", self.name)
            self._process.kill()
            await self._ended(seconds)
        self._process.join()
        if self._pids is not None:
            self._pids.remove(self._process.pid or 0)

    async def _ended(self, seconds: float) -> bool:
        assert self._process is not None
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._process.sentinel)
        return True

    def _receive(self, message: Message) -> None:
        if message[0] == "log":
            self._print(message[1])
        else:
            self._on_message(message)

    def _print(self, text: str) -> None:
        pid = self._process.pid if self._process else 0
        try:
            sys.stdout.write("".join([f"[{self.name} @ {pid}] {line}\n" for line in text.splitlines()]))
        except OSError:
            lost_output()
        asyncio.get_running_loop().call_soon(_flush)

    def _closed(self) -> None:
        self._pipe = None
        self._on_died()
