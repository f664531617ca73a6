"""Stops a server while its disk is full.

After one failed write, a server may store nothing until it is restarted, even if there is space again. So it is killed
when its disk is full, and restarted when there is space again.
"""

import asyncio
import logging
import shutil
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS = 0.5  # between two checks of the disk
ROOM_BYTES = 1_000_000  # a disk with less than this is full

log = logging.getLogger(__name__)


def is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < ROOM_BYTES


async def kill_when_full(server: Process, folder: Path, title: str) -> None:
    """Returns when the server has been killed, or has ended. It gets SIGKILL: on SIGTERM it would write first."""
    while server.returncode is None:
        await asyncio.sleep(LOOK_SECONDS)
        if is_full(folder):
            log.error("the disk is full: stopping %s", title)
            with suppress(ProcessLookupError):
                server.kill()
            return


async def wait_for_room(folder: Path) -> None:
    while is_full(folder):  # noqa: ASYNC110  other programs fill and empty the disk
        await asyncio.sleep(LOOK_SECONDS)
