"""Strategy 5 for tests: with short leases, and a worker in another terminal."""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tests.support.programs import Program, Strategy, running_strategy
from tests.support.servers import Inbox, Valkey

KILLS = int(os.environ.get("KILLS", "2"))  # of each kind; KILLS=100 takes half an hour
CLIENTS = 4 if KILLS < 10 else 1  # the inbox must be able to count them all
SLOTS = 50  # the most emails that a worker holds at a time
LEASE = "1"  # seconds
QUEUE = "resque:queue:emailQueue"
FAILED = "resque:failed"
PAUSED = "resque:py:paused:emailQueue"


@contextmanager
def queue(inbox: Inbox, valkey: Valkey, tmp_path: Path, **environment: str) -> Iterator[Strategy]:
    addresses = {"SMTP_URL": inbox.smtp_url, "REDIS_URL": valkey.url, "DRAIN_SECONDS": "2", "LEASE_SECONDS": LEASE}
    with running_strategy("5_remote_queue", tmp_path, **(addresses | environment)) as strategy:
        yield strategy


def a_worker(inbox: Inbox, valkey: Valkey, tmp_path: Path, **environment: str) -> AbstractContextManager[Program]:
    return a_process("worker", inbox, valkey, tmp_path, **environment)


@contextmanager
def a_process(role: str, inbox: Inbox, valkey: Valkey, tmp_path: Path, **environment: str) -> Iterator[Program]:
    """A process of this role in a terminal of its own."""
    addresses = {"SMTP_URL": inbox.smtp_url, "REDIS_URL": valkey.url, "DATA_DIR": str(tmp_path), "LEASE_SECONDS": LEASE}
    program = Program(["make", "run-5"], addresses | {"ROLE": role, "DRAIN_SECONDS": "2"} | environment)
    try:
        program.wait_for_line("ready to")
        yield program
    finally:
        program.stop()


def failed(valkey: Valkey) -> list[dict[str, Any]]:
    return [json.loads(str(record)) for record in valkey.client.lrange(FAILED, 0, -1)]


def settled(strategy: Strategy) -> bool:
    """Whether no email is waiting or in flight. Checks twice: one check may miss a job that is being claimed."""
    return strategy.held() == 0 == strategy.held()
