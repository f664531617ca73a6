"""`.data/worker.pid` and the like: the process ids of a role, one a line, for `kill $(cat .data/worker.pid)`."""

import os
from contextlib import suppress
from pathlib import Path


class PidFile:
    """The running processes of one role. Without a folder that can be written there is no file, and no error."""

    def __init__(self, folder: Path, role: str) -> None:
        self._path = folder / f"{role.replace(' ', '-')}.pid"
        self._pids: list[int] = []

    def add(self, pid: int) -> None:
        self._pids.append(pid)
        self._write()

    def remove(self, pid: int) -> None:
        self._pids.remove(pid)
        self._write()

    def _write(self) -> None:
        with suppress(OSError):
            if not self._pids:
                self._path.unlink()
                return
            fresh = self._path.with_suffix(f".{os.getpid()}")  # a reader sees the old file or the new one, never half
            fresh.write_text("".join(f"{pid}\n" for pid in self._pids))
            fresh.replace(self._path)
