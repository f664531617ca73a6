"""Makes Ctrl-C reach only this process and not the `make` that started it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def own_terminal() -> Iterator[None]:
    """Move this process to its own process group in the terminal's foreground, as a shell does for a job.

    Otherwise Ctrl-C would send SIGINT to `make` too, and make would report an error even after a clean stop. Ctrl-Z is
    ignored meanwhile, because the shell does not know the new group and could not continue it.
    """
    before = os.getpgrp()
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        yield
        return
    try:
        if "MAKELEVEL" not in os.environ or os.tcgetpgrp(terminal) != before or before == os.getpid():
            yield
            return
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())
        try:
            yield
        finally:
            with suppress(OSError):
                os.tcsetpgrp(terminal, before)
    finally:
        os.close(terminal)
