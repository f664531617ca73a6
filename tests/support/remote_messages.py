"""Strategy 4 for tests: with a subscribed worker, and a worker in another terminal."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.programs import Program, Strategy, running_strategy, wait_until
from tests.support.servers import Inbox, Valkey


def as_json(to: str, **more: Any) -> str:
    return json.dumps({"to": to, "subject": "Hello", "text": "How are you?"} | more)


@contextmanager
def remote(inbox: Inbox, valkey: Valkey, tmp_path: Path, **environment: str) -> Iterator[Strategy]:
    wait_until(lambda: valkey.subscribers() == 0, "the workers of the previous test have ended")
    addresses = {"SMTP_URL": inbox.smtp_url, "REDIS_URL": valkey.url, "DRAIN_SECONDS": "2"}
    with running_strategy("4_remote_messages", tmp_path, **(addresses | environment)) as strategy:
        if environment.get("ROLE") != "server":
            wait_until(strategy.healthy, "a worker is subscribed")
        yield strategy


@contextmanager
def a_worker(inbox: Inbox, tmp_path: Path, **environment: str) -> Iterator[Program]:
    """A worker in its own terminal."""
    addresses = {
        "SMTP_URL": inbox.smtp_url,
        "DATA_DIR": str(tmp_path),
        "ROLE": "worker",
        "VALKEY_PORT": "0",
        "DRAIN_SECONDS": "2",
    }
    program = Program(["make", "run-4"], addresses | environment)
    try:
        program.wait_for_line("subscribed to emailz$")
        yield program
    finally:
        program.stop()
