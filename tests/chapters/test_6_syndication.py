"""`python -m 6_event_bus.syndication`: subscribe applications to events, and end a subscription."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.services import service
from tests.support.programs import LIMIT, ROOT, closed_port
from tests.support.servers import Valkey

pytestmark = pytest.mark.usefixtures("clean")


def syndication(*words: str, **environment: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "6_event_bus.syndication", *words]
    options = {"cwd": ROOT, "env": os.environ | environment, "capture_output": True, "text": True}
    ended = subprocess.run(command, timeout=LIMIT, check=False, **options)  # type: ignore[call-overload]
    return ended.returncode, ended.stdout, ended.stderr


def test_an_application_is_subscribed_until_its_subscription_ends(valkey: Valkey) -> None:
    becomes = "billing: email_requested becomes NoteEmail in billingQueue\n"
    words = ("billing", "email_requested")
    assert syndication(*words, "billingQueue", "NoteEmail", REDIS_URL=valkey.url) == (0, becomes, "")
    ended = "billing is no longer subscribed to email_requested\n"
    assert syndication(*words, REDIS_URL=valkey.url) == (0, ended, "")
    not_there = "billing is not subscribed to email_requested\n"
    assert syndication(*words, REDIS_URL=valkey.url) == (1, "", not_there)


def test_bytes_that_are_not_utf8_are_one_line(valkey: Valkey) -> None:
    for words in (("\udcff", "e"), ("a", "e", "\udcff", "C")):
        assert syndication(*words, REDIS_URL=valkey.url) == (2, "", "an argument is not valid UTF-8\n")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("a\x1b[31m", "e", "q", "C"), "application"),
        (("two words", "e", "q", "C"), "application"),
        (("", "e", "q", "C"), "application"),
        (("a", "\u2028", "q", "C"), "event"),
        (("a", "e", "\n", "C"), "queue"),
        (("a", "e", "q", ""), "class"),
    ],
)
def test_an_invalid_name_is_one_line_and_changes_nothing(valkey: Valkey, words: tuple[str, ...], what: str) -> None:
    assert syndication(*words, REDIS_URL=valkey.url) == (2, "", f"not a valid name of the {what}\n")
    assert valkey.client.keys() == []


def test_no_escape_sequence_of_another_program_reaches_the_terminal(valkey: Valkey) -> None:
    entry = '{"event":"e\\u001b[2J","queue":"q\\n","class":"C","since":"0-0"}'
    valkey.client.hset("eventlog:subscriptions", "odd\x1b[31m e", entry)
    status, printed, _ = syndication("a", "e", "q", "C", REDIS_URL=valkey.url)
    assert (status, sorted(printed.splitlines())) == (
        0,
        ["a: e becomes C in q", r"odd\x1b[31m: e\x1b[2J becomes C in q\n"],
    )


def test_without_a_url_the_commands_use_the_valkey_of_this_checkout(valkey: Valkey, tmp_path: Path) -> None:
    with closed_port() as port, service.claim(tmp_path, "valkey") as announcement:
        service.announce(announcement, pid=valkey.pid, valkey_port=valkey.port)
        settings = {"DATA_DIR": str(tmp_path), "VALKEY_PORT": str(port), "REDIS_URL": ""}
        assert syndication("a", "e", "q", "C", **settings) == (0, "a: e becomes C in q\n", "")
        command = [sys.executable, "-m", "6_event_bus.consumers"]
        ended = subprocess.run(command, cwd=ROOT, env=os.environ | settings, timeout=LIMIT, check=False)
        assert ended.returncode == 0
    service._announcements.remove(announcement)
