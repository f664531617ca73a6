"""Checks command-line arguments, and ends a command whose output may be a closed pipe, as in `| head`."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

PIPE_CLOSED = 141  # the exit status of a program that SIGPIPE has ended


def exit_after(command: Callable[[], int]) -> NoReturn:
    """Run a command that prints and end the program with the exit status that it returns.

    If the reader closes the pipe, the program ends without a traceback; if the disk is full, with one line.
    """
    status: str | int | None
    try:
        try:
            status = command()
        except SystemExit as end:  # argparse raises it after --help
            status = end.code
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        status = PIPE_CLOSED
        _discard_output()
    except OSError as error:
        print(f"cannot write the output: {error.strerror or error}", file=sys.stderr)
        status = 1
        _discard_output()
    sys.exit(status)


def are_utf8(words: Sequence[str]) -> bool:
    """Whether these command-line arguments are valid UTF-8. Python represents invalid bytes as surrogates."""
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        return False
    return True


def _discard_output() -> None:
    """Python would write the rest of the buffer at exit, and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
