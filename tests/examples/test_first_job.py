"""The first example, as a reader starts it: jobs created on its page, run by its worker, seen on the queue's pages."""

import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.programs import LIMIT, ROOT, Program, wait_until
from tests.support.servers import Inbox, Valkey


class Example(NamedTuple):
    program: Program
    url: str

    def create(self, **fields: str) -> str:
        """Post the form; returns the address of the page that the browser is led to."""
        data = urllib.parse.urlencode(fields).encode()
        with urllib.request.urlopen(self.url, data, timeout=LIMIT) as answer:
            return str(answer.geturl())

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=LIMIT) as answer:
            return str(answer.read().decode())


@pytest.fixture
def example(inbox: Inbox, valkey: Valkey, tmp_path: Path) -> Iterator[Example]:
    valkey.client.flushall()
    settings = {"PORT": "0", "DATA_DIR": str(tmp_path), "SMTP_URL": inbox.smtp_url, "REDIS_URL": valkey.url}
    program = Program(["make", "example-first-job"], settings)
    try:
        url = program.wait_for_line(r"create jobs +(http://\S+)")[1]
        yield Example(program, url)
    finally:
        program.stop()
    assert "Traceback" not in program.output


def test_two_jobs_run_at_a_time_and_the_pages_of_the_queue_show_them(example: Example) -> None:
    assert example.create(title="one") == f"{example.url}jobs"
    for title in ("two", "three"):
        example.create(title=title)
    for title in ("one", "two", "three"):
        example.program.wait_for_line(f"done: {title}$")
    page = example.page("jobs/workers")
    assert 'action="/jobs' in example.page("jobs/queues")
    assert "/resque" not in page
    assert example.page("jobs/assets/page.css")


def test_an_email_has_three_attempts_with_growing_pauses(example: Example, inbox: Inbox, valkey: Valkey) -> None:
    inbox.dial(refuse_rate=1.0)
    example.create(to="alice@example.com", subject="Hello", text="How are you?")
    wait_until(lambda: "sendEmail" in example.page("jobs/failed"), "the job is in the failed list")
    assert valkey.client.hget("resque:py:totals", "retried") == "2"
    inbox.dial(refuse_rate=0.0)
    token = re.findall(r'name="token" value="(\w+)"', example.page("jobs/failed"))[0]
    data = urllib.parse.urlencode({"token": token}).encode()
    with urllib.request.urlopen(f"{example.url}jobs/failed/retry-all", data, timeout=LIMIT) as answer:
        assert "/jobs/failed?" in answer.geturl()
    inbox.wait_for("alice@example.com", 1)


def test_the_two_files_are_at_most_80_lines() -> None:
    files = [ROOT / "examples" / "first_job" / name for name in ("server.py", "worker.py")]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 80
