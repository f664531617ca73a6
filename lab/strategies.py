"""A strategy as the reader starts it: `python -m common.run N`, which is all that `make run-N` does."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

from lab.children import LOOK_SECONDS, Child, ChildFailed, Lab, python
from lab.machine import child_pids
from lab.sinks import CountingSink, url_of

EMPTY_SECONDS = 30.0


@dataclass(frozen=True)
class Strategy:
    number: int
    port: int
    runner: Child

    def pids(self) -> list[int]:
        """Its roles' processes, the runner not among them."""
        return child_pids(self.runner.process.pid)

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
def strategy(lab: Lab, number: int, sink: CountingSink) -> Iterator[Strategy]:
    """All its roles, at a free port, with a data folder of their own; mail goes to the sink."""
    name = f"strategy-{number}"
    settings = {"PORT": 0, "SMTP_URL": url_of(sink), "DATA_DIR": lab.folder / name}
    with lab.child(python("common.run", number), name, **settings) as child:
        port = int(child.wait_for(r"listens on http://[^ ]*:(\d+)/\s+send an email"))
        yield Strategy(number, port, child)
