"""Ctrl-C in a terminal that `make` was started from."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def own_terminal() -> Iterator[None]:
    """Let Ctrl-C reach this process and not the `make` it was started from.

    Both are in the terminal's foreground process group, and make, hit by SIGINT, would report an error after even the
    cleanest end. So this process makes a group of its own and moves it to the foreground, as a shell does for a job.
    Ctrl-Z is ignored meanwhile: no shell would know of the stopped group.
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
