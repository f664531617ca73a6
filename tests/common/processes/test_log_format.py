"""The log of every process: what another program has written cannot act on the terminal or forge a line."""

import asyncio
import io
import logging
import time

import pytest

from common.processes.log_format import PrintableFormatter, printable
from common.processes.process import Output


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


def test_the_time_of_a_line_is_that_of_its_second() -> None:
    formatter = PrintableFormatter("%(asctime)s %(message)s", "%S")
    formatter.converter = time.gmtime
    records = [logging.makeLogRecord({"msg": "x", "created": created}) for created in (7.0, 7.9, 8.0, 7.0)]
    assert [formatter.format(record) for record in records] == ["07 x", "07 x", "08 x", "07 x"]


async def test_informative_lines_of_one_tick_are_written_together_and_a_warning_at_once() -> None:
    stream = io.StringIO()
    output = Output(stream)
    output.handle(logging.makeLogRecord({"msg": "one", "levelno": logging.INFO}))
    output.handle(logging.makeLogRecord({"msg": "two", "levelno": logging.INFO}))
    assert stream.getvalue() == ""
    await asyncio.sleep(0)
    assert stream.getvalue() == "one\ntwo\n"
    output.handle(logging.makeLogRecord({"msg": "three", "levelno": logging.INFO}))
    output.handle(logging.makeLogRecord({"msg": "four", "levelno": logging.WARNING}))
    assert stream.getvalue() == "one\ntwo\nthree\nfour\n"


def test_without_an_event_loop_each_line_is_written_at_once() -> None:
    stream = io.StringIO()
    Output(stream).handle(logging.makeLogRecord({"msg": "one", "levelno": logging.INFO}))
    assert stream.getvalue() == "one\n"
