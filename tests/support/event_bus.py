"""Strategy 6 for tests: start it on either log, and wait until it has handled every event."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eventlog.nats_client import Nats
from tests.support.programs import Strategy, running_strategy, wait_until
from tests.support.servers import Inbox

NAME = "6_event_bus"
LOGS = ("lua", "streams")


@contextmanager
def event_bus(inbox: Inbox, data_dir: Path, **environment: str) -> Iterator[Strategy]:
    """Start the strategy with its own Valkey, and with short leases so that a test can wait for their end."""
    own = {"SMTP_URL": inbox.smtp_url, "LEASE_SECONDS": "1", "DRAIN_SECONDS": "2", "PARTITION_SECONDS": "1"}
    with running_strategy(NAME, data_dir, **(own | environment)) as strategy:
        yield strategy


def settled(strategy: Strategy) -> None:
    """Wait until no event is waiting or in flight. Checks twice: one check may miss an event that is being claimed."""

    def nothing_left() -> bool:
        try:
            stats = strategy.stats()
        except OSError:
            return False
        return stats.get("waiting") == stats.get("in_flight") == stats.get("audit_waiting") == 0

    wait_until(lambda: nothing_left() and nothing_left(), "every event is handled", limit=40.0)


@contextmanager
def on_jetstream(inbox: Inbox, data_dir: Path, **environment: str) -> Iterator[Strategy]:
    with event_bus(inbox, data_dir, **{"LOG": "jetstream", **environment}) as strategy:
        yield strategy
    assert "Traceback" not in strategy.program.output


def asked(port: int, question: str) -> Any:
    """The answer of JetStream's API."""

    async def ask() -> Any:
        async with Nats(f"nats://127.0.0.1:{port}") as nats:
            return await nats.api(question)

    return asyncio.run(ask())
