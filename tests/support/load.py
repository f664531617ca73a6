"""A steady load on a strategy that is being killed meanwhile, and the account of it afterwards."""

import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException

from tests.support.programs import Inbox, Strategy, wait_until


@dataclass
class Load:
    """Clients that send one email after the other; what they were answered."""

    strategy: Strategy
    to: str
    clients: int = 8
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
            with suppress(OSError, HTTPException):  # the server is dead just now
                answer = self.strategy.send(self.to)
                self.statuses[answer.status] += 1
                if answer.status < 300:
                    self.accepted.append(answer.json["id"])
            self._stop.wait(0.03)

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more emails have been accepted."""
        before = len(self.accepted)
        wait_until(lambda: len(self.accepted) >= before + count, f"{count} more emails are accepted")


@dataclass
class Account:
    """accepted = delivered + lost; duplicated are copies beyond the first, unasked were never accepted."""

    accepted: int
    lost: int
    duplicated: int
    unasked: int


def account(load: Load, inbox: Inbox) -> Account:
    assert len(load.accepted) < 9_000, "the inbox keeps 10,000: the load was too much to be counted"
    messages = inbox.messages(load.to)
    delivered = {message["message_id"] for message in messages}
    return Account(
        accepted=len(load.accepted),
        lost=len(set(load.accepted) - delivered),
        duplicated=sum(message["copies"] - 1 for message in messages),
        unasked=len(delivered - set(load.accepted)),
    )
