"""A strategy, started as the reader starts it: by `make run-N`, with the embedded Valkey if it needs one."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil

from common.services.service import running, running_redis
from lab.harness.log_scan import LogScan
from lab.harness.machine import alive, descendants
from lab.harness.processes import POLL_SECONDS, ROOT, START_SECONDS, Child, ChildFailed, Lab

EMPTY_SECONDS = 30.0

_NAMED = re.compile(r"^\[([a-z ]+) @ (\d+)\]|the ([a-z ]+) @ (\d+) has started$", re.MULTILINE)


def strategies(*numbers: int) -> list[int]:
    """Those of these strategies that exist."""
    return [number for number in numbers if list(ROOT.glob(f"{number}_*/server.py"))]


@dataclass(frozen=True)
class Strategy:
    number: int
    port: int
    data_dir: Path
    make: Child
    given_redis_url: str | None = None
    """Set if it uses a Redis that was started outside it."""

    @cached_property
    def _named(self) -> LogScan:
        return LogScan(self.make.file, _NAMED)

    def pids(self) -> list[int]:
        """The pids of all processes that `make` has started: the runner, the roles, and the embedded services."""
        return [process.pid for process in descendants(self.make.process.pid) if alive(process)]

    def roles(self) -> dict[int, str]:
        """The roles of its running processes by pid, the newest last, as the log names them, and the brokers."""
        named = {int(a or b): x or y for x, a, y, b in self._named.matches()}
        for service in ("valkey", "rabbitmq", "nats"):
            if found := running(self.data_dir, service):
                named[found["pid"]] = service
        return {pid: name for pid, name in named.items() if self._runs(pid)}

    def _runs(self, pid: int) -> bool:
        """Whether it runs below `make`. The browser lab asks often, so this does not read all processes."""
        try:
            if not alive(psutil.Process(pid)):
                return False
            while pid > 1 and pid != self.make.process.pid:
                pid = psutil.Process(pid).ppid()
        except psutil.NoSuchProcess:
            return False
        return pid == self.make.process.pid

    def pid(self, role: str) -> int | None:
        """The pid of the process that has this role now; None if there is none."""
        return next((pid for pid, name in reversed(self.roles().items()) if name == role), None)

    def runner(self) -> int:
        """The pid of the program that starts and supervises the roles: the one child of `make`."""
        [runner] = psutil.Process(self.make.process.pid).children()
        return int(runner.pid)

    def redis_url(self) -> str:
        """The URL of its Redis. Raises ChildFailed if there is none."""
        if self.given_redis_url is not None:
            return self.given_redis_url
        if (url := running_redis(self.data_dir)) is None:
            raise ChildFailed(f"strategy {self.number} has no Redis")
        return url

    def nats_url(self) -> str:
        """The URL of the embedded NATS, or of its three nodes. Raises ChildFailed when there is none."""
        if nodes := running(self.data_dir, "nats_cluster"):
            return ",".join(f"nats://127.0.0.1:{port}" for name, port in nodes.items() if name != "pid")
        if (nats := running(self.data_dir, "nats")) is None:
            raise ChildFailed(f"strategy {self.number} has no NATS")
        return f"nats://127.0.0.1:{nats['nats_port']}"

    def wait_until_healthy(self) -> None:
        """Wait until the strategy can accept an email. Raises ChildFailed."""
        deadline = time.monotonic() + START_SECONDS
        while (reason := self.unhealthy()) is not None:
            if time.monotonic() > deadline or self.make.process.poll() is not None:
                raise ChildFailed(f"strategy {self.number}: {reason}")
            time.sleep(POLL_SECONDS)

    def unhealthy(self) -> str | None:
        """Why the strategy cannot accept an email now; None if it can."""
        try:
            urlopen(f"http://127.0.0.1:{self.port}/health", timeout=10).close()
        except HTTPError as error:
            return error.read().decode()
        except OSError as error:
            return str(error)
        return None

    def stats(self) -> dict[str, Any]:
        """Raises OSError when the server does not answer."""
        with urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=10) as response:
            facts: dict[str, Any] = json.load(response)
            return facts

    def wait_until_empty(self) -> None:
        """Wait until every accepted email was sent or given up, by the strategy's counters. Raises ChildFailed."""
        deadline = time.monotonic() + EMPTY_SECONDS
        while any((stats := self.stats())[gauge] for gauge in ("waiting", "in_flight")):
            if time.monotonic() > deadline:
                raise ChildFailed(f"strategy {self.number} still has work after {EMPTY_SECONDS:g} s: {stats}")
            time.sleep(POLL_SECONDS)

    def memory(self) -> dict[str, int]:
        """The resident bytes of each role. `runner` has all other processes that `make` has started."""
        bytes_of: dict[str, int] = {}
        roles = self.roles()
        for pid in self.pids():
            name = roles.get(pid, "runner")
            try:
                bytes_of[name] = bytes_of.get(name, 0) + psutil.Process(pid).memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return bytes_of


@contextmanager
def strategy(lab: Lab, number: int, smtp_url: str, port: int = 0, /, **settings: object) -> Iterator[Strategy]:
    """A strategy with all its roles on this port (0: any free one), with a data folder and a Valkey of its own."""
    with start_strategy(lab, number, smtp_url, port, **settings) as child:
        port = int(child.wait_for(r"listens on http://[^ ]*:(\d+)/\s+send an email"))
        redis_url = settings.get("REDIS_URL")
        found = Strategy(number, port, data_dir(lab, number), child, str(redis_url) if redis_url else None)
        found.wait_until_healthy()
        yield found


def start_strategy(
    lab: Lab, number: int, smtp_url: str, port: int, /, **settings: object
) -> AbstractContextManager[Child]:
    own = {"PORT": port, "SMTP_URL": smtp_url, "DATA_DIR": data_dir(lab, number), "VALKEY_PORT": 0, "NATS_PORT": 0}
    return lab.child(["make", f"run-{number}"], f"strategy-{number}", True, **own, **settings)


def data_dir(lab: Lab, number: int) -> Path:
    """The data folder. Processes with the same data folder share the embedded services."""
    return lab.folder / f"strategy-{number}"
