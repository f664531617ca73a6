"""The end of a command whose output may be a pipe: its reader may leave first, as in `| head`."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

READER_LEFT = 141  # as a shell reports a program that SIGPIPE has ended


def exit_after(command: Callable[[], int]) -> NoReturn:
    """Run a command that prints and end the program with the exit status that it returns.

    A reader that leaves ends it without a traceback, a full disk with one line.
    """
    status: str | int | None
    try:
        try:
            status = command()
        except SystemExit as end:  # of argparse, after --help
            status = end.code
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        status = READER_LEFT
        _discard_output()
    except OSError as error:
        print(f"cannot write the output: {error.strerror or error}", file=sys.stderr)
        status = 1
        _discard_output()
    sys.exit(status)


def _discard_output() -> None:
    """What is still in the buffer would be written at the very end, and fail there again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
