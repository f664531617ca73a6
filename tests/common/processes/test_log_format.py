"""The log of every process: what another program has written cannot act on the terminal or forge a line."""

import logging

import pytest

from common.processes.log_format import PrintableFormatter, printable


def formatted(message: str, error: Exception | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "%s", (message,), info)
    return PrintableFormatter("[%(levelname)s] %(message)s").format(record)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße an 名前", "Grüße an 名前"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("one\n12:00:00 two", r"one\n12:00:00 two"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\r\t\x00\x9b", r"\r\t\x00\x9b"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert formatted(text) == f"[INFO] {shown}"


def test_a_traceback_keeps_its_lines_and_its_message_cannot_act() -> None:
    try:
        raise ValueError("\x1b[2J")
    except ValueError as error:
        lines = formatted("an error", error).split("\n")
    assert lines[:2] == ["[INFO] an error", "Traceback (most recent call last):"]
    assert lines[-1] == r"ValueError: \x1b[2J"
