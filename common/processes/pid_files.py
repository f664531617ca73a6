"""Files such as `.data/worker.pid` with the process ids of a role, one a line, for `kill $(cat .data/worker.pid)`."""

import os
from contextlib import suppress
from pathlib import Path


class PidFile:
    """The running processes of one role. If the folder cannot be written, there is no file and no error."""

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
            new = self._path.with_suffix(f".{os.getpid()}")  # renamed below, so a reader never sees half a file
            new.write_text("".join(f"{pid}\n" for pid in self._pids))
            new.replace(self._path)
