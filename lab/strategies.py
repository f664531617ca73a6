"""A strategy as the reader starts it: `python -m common.run N`, which is all that `make run-N` does."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from lab.children import LOOK_SECONDS, ROOT, START_SECONDS, Child, ChildFailed, Lab, python
from lab.machine import descendants
from lab.sinks import CountingSink, url_of
from lab.valkey import valkey

EMPTY_SECONDS = 30.0
USING_REDIS = (4, 5, 6)

_PREFIX = re.compile(r"^\[([a-z ]+) @ (\d+)\]", re.MULTILINE)


def strategies(*numbers: int) -> list[int]:
    """Those of them that are there."""
    return [number for number in numbers if list(ROOT.glob(f"{number}_*/server.py"))]


@dataclass(frozen=True)
class Strategy:
    number: int
    port: int
    runner: Child

    def pids(self) -> list[int]:
        """Its roles' processes, the runner not among them."""
        return [process.pid for process in descendants(self.runner.process.pid)]

    def roles(self) -> dict[int, str]:
        """The same by the names under which they speak; one that never speaks does no work either."""
        names = {int(pid): name for name, pid in _PREFIX.findall(self.runner.text())}
        return {pid: names[pid] for pid in self.pids() if pid in names}

    def wait_until_healthy(self) -> None:
        """Wait until an email could be accepted. Raises ChildFailed."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urlopen(f"http://127.0.0.1:{self.port}/health", timeout=10).close()
                return
            except HTTPError as error:
                if time.monotonic() > deadline:
                    raise ChildFailed(f"strategy {self.number}: {error.read().decode()}") from None
            time.sleep(LOOK_SECONDS)

    def stats(self) -> dict[str, Any]:
        with urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=10) as response:
            facts: dict[str, Any] = json.load(response)
            return facts

    def wait_until_empty(self) -> None:
        """Wait until every accepted email was sent or given up, as far as the strategy knows. Raises ChildFailed."""
        deadline = time.monotonic() + EMPTY_SECONDS
        while any((stats := self.stats())[gauge] for gauge in ("waiting", "in_flight")):
            if time.monotonic() > deadline:
                raise ChildFailed(f"strategy {self.number} still has work after {EMPTY_SECONDS:g} s: {stats}")
            time.sleep(LOOK_SECONDS)


@contextmanager
def strategy(lab: Lab, number: int, sink: CountingSink, **settings: object) -> Iterator[Strategy]:
    """All its roles, at a free port, with a data folder and a Redis of their own; mail goes to the sink."""
    name = f"strategy-{number}"
    own = {"PORT": 0, "SMTP_URL": url_of(sink), "DATA_DIR": lab.folder / name}
    with ExitStack() as stack:
        if number in USING_REDIS:  # by URL, because one in the reader's `.env` must not be used
            own["REDIS_URL"] = stack.enter_context(valkey(lab))
        child = stack.enter_context(lab.child(python("common.run", number), name, **own, **settings))
        port = int(child.wait_for(r"listens on http://[^ ]*:(\d+)/\s+send an email"))
        running = Strategy(number, port, child)
        running.wait_until_healthy()
        yield running
