"""Processes that the lab freezes with SIGSTOP. They get SIGCONT even if the lab is killed in the meantime."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

WAKER = ("/bin/sh", "-c", 'read -r _; kill -CONT "$1"', "sh")
"""Waits until its standard input ends. That also happens when the lab is killed."""


class FrozenProcesses:
    """A frozen process cannot notice that the lab was killed. So each has a waker process that thaws it then."""

    def __init__(self) -> None:
        self._wakers: dict[int, subprocess.Popen[bytes]] = {}

    def __contains__(self, pid: int) -> bool:
        return pid in self._wakers

    def add(self, pid: int) -> None:
        """Call this just before or after SIGSTOP is sent to the process."""
        if pid not in self:
            self._wakers[pid] = subprocess.Popen(
                [*WAKER, str(pid)],
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # "No such process", if it has ended
                start_new_session=True,  # Ctrl-C does not stop it
            )

    def discard(self, pid: int) -> None:
        """Call this after SIGCONT has been sent to the process, or after it was killed."""
        if waker := self._wakers.pop(pid, None):
            waker.kill()
            waker.communicate()

    def thaw(self) -> None:
        """Thaw all."""
        for pid in list(self._wakers):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            self.discard(pid)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Freeze the process with SIGSTOP, and send it SIGCONT afterwards. Raises ProcessLookupError."""
    processes = FrozenProcesses()
    processes.add(pid)  # first: this program may be killed at any moment
    try:
        os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        processes.thaw()
