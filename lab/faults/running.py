"""A subject and its mail server under faults. Both can be stopped and started again on the same ports."""

import re
import shutil
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from redis import Redis

from asynckit.redis_client import blocking_redis_client
from lab.faults.preparations import CannotDo, Preparation, no_preparation, preparation
from lab.faults.promises import ATTEMPTS, Subject
from lab.harness.engines import missing
from lab.harness.log_scan import LogScan
from lab.harness.mailbox import Mailbox
from lab.harness.nodes import Nodes, cannot_run, proxied_nodes, server_settings
from lab.harness.processes import POLL_SECONDS, Child, ChildFailed, Lab
from lab.harness.strategies import Strategy, data_dir, start_strategy, strategy

LEASE_SECONDS = 2.0  # of strategies 5 and 6. With the default of 10 the experiment would mostly wait
SEND_SECONDS = 2.0  # how long a strategy waits for each answer of the mail server; by default up to 10 minutes
TAKE_MS = 100  # how long the mail server needs to store an email, so that some are always in flight
EXIT_SECONDS = 30.0

SMTP_LIMITS = ("CONNECT", "SEND", "GREETING", "COMMAND", "DATA", "ANSWER")

SETTINGS = {
    "LEASE_SECONDS": LEASE_SECONDS,
    "ATTEMPTS": ATTEMPTS,
    "RETRY_PAUSES_SECONDS": "1 2 4 8",  # longer than the mail server greylists; the default pauses add up to a day
    **{f"SMTP_{limit}_SECONDS": SEND_SECONDS for limit in SMTP_LIMITS},
}


class Running:
    def __init__(self, lab: Lab, subject: Subject, box: Mailbox) -> None:
        self.subject = subject
        self.box = box
        self.strategy: Strategy
        self.nodes: Nodes
        """With Sentinel or in a cluster: the servers, behind proxies."""
        self.outputs: list[Path] = []
        self.other_jobs_failed = 0
        """How many jobs other than emails are among those that the strategy counts as failed."""
        self._scans: dict[tuple[Path, re.Pattern[str]], LogScan] = {}
        self._lab = lab
        self._running = ExitStack()
        self._port = 0
        self._needed: Preparation = no_preparation
        self._prepared: Preparation | None = None

    def prepare(self, fault: str) -> None:
        """Start the strategy with what this fault needs, unless it already runs like that.

        Raises CannotDo, ChildFailed or OSError.
        """
        if reason := missing(self.subject.settings) or cannot_run(self.subject.topology):
            raise CannotDo(reason)
        if (needed := preparation(fault, self.subject.number)) is self._prepared:
            return
        self.end()
        self._needed, self._prepared = needed, None
        self.start()
        self._prepared = needed

    def start(self) -> None:
        folder = data_dir(self._lab, self.subject.number)
        prepared = self._running.enter_context(self._needed(folder))
        if self.subject.topology != "single":
            self.nodes = self._running.enter_context(proxied_nodes(folder, self.subject.topology))
            prepared |= server_settings()
        settings = {**SETTINGS, **self.subject.settings, **prepared}
        context = strategy(self._lab, self.subject.number, self.box.smtp_url, self._port, **settings)
        self.strategy = self._running.enter_context(context)
        self._port = self.strategy.port
        self.outputs.append(self.strategy.make.file)

    def end(self) -> None:
        self._running.close()

    def restart(self) -> None:
        """Restart with an empty data folder and a mail server without faults. Raises ChildFailed or OSError.

        Otherwise the next cell would count emails that a broken cell has left in Redis.
        """
        self.end()
        self.other_jobs_failed = 0
        shutil.rmtree(data_dir(self._lab, self.subject.number), ignore_errors=True)
        self.box.repair()
        self.start()

    def program(self, command: list[str]) -> AbstractContextManager[Child]:
        """Another program with the same settings. It runs as long as the block."""
        settings = {**SETTINGS, **self.subject.settings, "SMTP_URL": self.box.smtp_url}
        return self._lab.child(command, "program", REDIS_URL=self.strategy.redis_url(), **settings)

    def extra_process(self, role: str) -> AbstractContextManager[Child]:
        """One more process of this role. It runs as long as the block."""
        settings = {**SETTINGS, **self.subject.settings, "ROLE": role}
        return start_strategy(self._lab, self.subject.number, self.box.smtp_url, 0, **settings)

    def pid(self, role: str) -> int:
        """The pid of the process with this role, as soon as there is one. Raises ChildFailed."""
        name = "valkey" if role == "redis" else self.subject.roles[role]
        deadline = time.monotonic() + EXIT_SECONDS
        while (pid := self.strategy.pid(name)) is None:
            if time.monotonic() > deadline:
                raise ChildFailed(f"there is no {name} after {EXIT_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        return pid

    def scans(self, pattern: re.Pattern[str]) -> list[LogScan]:
        """One for each of its logs so far, oldest first."""
        for path in self.outputs:
            self._scans.setdefault((path, pattern), LogScan(path, pattern))
        return [scan for (_, own), scan in self._scans.items() if own is pattern]

    def redis(self) -> Redis:
        return blocking_redis_client(self.strategy.redis_url(), EXIT_SECONDS)
