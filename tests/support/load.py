"""A steady load on a strategy whose processes are being killed, and its account."""

import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException

from lab.harness.account import IdAccount, compare_ids
from tests.support.programs import LIMIT, Strategy, wait_until
from tests.support.servers import Inbox


@dataclass
class Load:
    """Clients that send one email after the other, and the answers they got."""

    strategy: Strategy
    to: str
    clients: int = 4
    accepted: list[str] = field(default_factory=list)
    """The ids of the emails with a 2xx."""
    statuses: Counter[int] = field(default_factory=Counter)

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._stop.is_set():
            with suppress(OSError, HTTPException):  # the server has been killed and is restarting
                answer = self.strategy.send(self.to)
                self.statuses[answer.status] += 1
                if answer.status < 300:
                    self.accepted.append(answer.json["id"])
            self._stop.wait(0.1)  # a process that restarts needs the CPU more than the load does

    def wait_for_more(self, count: int, limit: float = LIMIT) -> None:
        """Wait until `count` more emails have been accepted."""
        before = len(self.accepted)
        wait_until(lambda: len(self.accepted) >= before + count, f"{count} more emails are accepted", limit)


def wait_for_all(load: Load, inbox: Inbox, limit: float = LIMIT) -> None:
    wait_until(lambda: account(load, inbox).lost == 0, "every accepted email is in the inbox", limit)


def account(load: Load, inbox: Inbox) -> IdAccount:
    assert len(load.accepted) < 9_000, "the inbox keeps 10,000 emails, so it cannot count this load"
    messages = inbox.messages(load.to)
    return compare_ids(load.accepted, [message["message_id"] for message in messages for _ in range(message["copies"])])
