"""The servers that tests use: the embedded inbox, Valkey and NATS."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis import Redis
from redis.client import PubSub

from common.services.service import running
from tests.support.programs import LIMIT, START_SECONDS, Program, ask, open_users_lock, wait_until


class Inbox:
    """The embedded inbox, through its API."""

    def __init__(self, url: str, smtp_port: int, pid: int) -> None:
        self.url = url
        self.smtp_port = smtp_port
        self.smtp_url = f"smtp://127.0.0.1:{smtp_port}"
        self.pid = pid

    def messages(self, to: str) -> list[dict[str, Any]]:
        """The messages to this address, newest first."""
        found: list[dict[str, Any]] = ask(self.url, f"/api/messages?limit=10000&to={quote(to)}").json
        return found

    def wait_for(self, to: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until `count` messages to this address have arrived."""
        wait_until(lambda: len(self.messages(to)) >= count, f"{count} emails to {to}")
        found = self.messages(to)
        assert len(found) == count
        return found

    def dial(self, **faults: float) -> None:
        assert ask(self.url, "/api/faults", "PUT", body=faults).status == 200


@contextmanager
def running_inbox(data_dir: Path, **environment: str) -> Iterator[Inbox]:
    """The inbox as a separate process, on free ports."""
    ports = {"INBOX_SMTP_PORT": "0", "INBOX_PORT": "0"}
    with open_users_lock(data_dir, "inbox"):
        program = Program(
            [sys.executable, "-m", "common.services.inbox"], ports | {"DATA_DIR": str(data_dir)} | environment
        )
        try:
            facts = wait_until(lambda: running(data_dir, "inbox"), f"the inbox runs: {program.output}")
            yield Inbox(f"http://127.0.0.1:{facts['inbox_port']}", facts["inbox_smtp_port"], facts["pid"])
        finally:
            program.stop()


@contextmanager
def running_service(name: str, data_dir: Path, **environment: str) -> Iterator[None]:
    """An embedded service as a separate process, on a free port."""
    with open_users_lock(data_dir, name):
        settings = {f"{name.upper()}_PORT": "0", "DATA_DIR": str(data_dir)} | environment
        program = Program([sys.executable, "-m", f"common.services.{name}"], settings)
        try:
            program.wait_for_line(" listens on ", START_SECONDS)
            yield
        finally:
            program.stop()


class Valkey:
    """The embedded Valkey: its address, and a client that decodes answers."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client = Redis(port=port, protocol=2, decode_responses=True, socket_timeout=LIMIT)

    def subscribers(self, channel: str = "emailz") -> int:
        [(_, number)] = self.client.pubsub_numsub(channel)
        return int(number)

    def listen(self, channel: str) -> PubSub:
        """A confirmed subscription."""
        pubsub: PubSub = self.client.pubsub()  # type: ignore[no-untyped-call]
        pubsub.subscribe(channel)
        pubsub.get_message(timeout=LIMIT)
        return pubsub

    def publish(self, message: bytes | str, channel: str = "emailz") -> int:
        """Publish a message. Returns the number of subscribers that received it."""
        return int(self.client.publish(channel, message))


def valkey_of(data_dir: Path) -> Valkey:
    """The Valkey that runs with this data folder."""
    facts = wait_until(lambda: running(data_dir, "valkey"), "Valkey runs")
    return Valkey(facts["valkey_port"], facts["pid"])


@contextmanager
def running_valkey(data_dir: Path, **environment: str) -> Iterator[Valkey]:
    """Valkey as a separate process, on a free port."""
    with running_service("valkey", data_dir, **environment):
        valkey = valkey_of(data_dir)
        yield valkey
        valkey.client.close()


class NatsServer:
    """The embedded NATS: its address and its process."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self.url = f"nats://127.0.0.1:{port}"


def nats_of(data_dir: Path) -> NatsServer:
    """The one that runs for this folder."""
    facts = wait_until(lambda: running(data_dir, "nats"), "NATS runs")
    return NatsServer(facts["nats_port"], facts["pid"])


@contextmanager
def running_nats(data_dir: Path, **environment: str) -> Iterator[NatsServer]:
    """NATS as a service of its own, on a free port."""
    with running_service("nats", data_dir, **environment):
        yield nats_of(data_dir)
