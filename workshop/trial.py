"""One check of a learner's folder: programs that are killed, an inbox, and the account of the emails.

A check is `async def check(trial: Trial) -> str` in an exercise's `check.py`. It returns one line about what it has
seen, or raises Failed. It looks at behaviour only and never at source text, and it takes its random numbers from
`trial.random`.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientError, ClientSession, ClientTimeout
from redis.asyncio import Redis

from asynckit.ids import new_id
from asynckit.redis_client import redis_client
from common.address import free_port
from common.processes.process import LIFELINE
from lab.harness.account import Account, account
from lab.harness.processes import ROOT, default_environment
from lab.load.steady import Record
from workshop.bench import KILL, Bench
from workshop.faults import MOVABLE_CLOCK
from workshop.inbox import Inbox
from workshop.program import LIMIT, POLL_SECONDS, Failed, Program, clock_of


@dataclass
class Trial:
    folder: Path
    """The learner's folder."""
    bench: Bench
    seed: int = 2016
    random: Random = field(init=False)
    began: int = field(init=False)
    """ns, perf_counter_ns"""

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.began = time.perf_counter_ns()
        self.measured: float | None = None
        """The number that the learner was asked to predict."""
        self._programs: list[Program] = []
        self._inboxes: list[Inbox] = []
        self._clients: list[Redis] = []
        self._session: ClientSession | None = None
        self._stack = ExitStack()
        self.redis_url = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for program in self._programs:
            self.bench.signal(program.pid, KILL)
        for program in self._programs:
            await program.wait()
        for inbox in self._inboxes:
            await inbox.close()
        for client in self._clients:
            await client.aclose()
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # its connections are closed by callbacks
        self._stack.close()

    async def inbox(self, take_seconds: float = 0.0) -> Inbox:
        inbox = Inbox(take_seconds)
        await inbox.open()
        self._inboxes.append(inbox)
        return inbox

    async def redis(self) -> Redis:
        """A client of an empty Redis, which the programs that are started afterwards find by REDIS_URL."""
        if not self.redis_url:
            self.redis_url = await asyncio.to_thread(self._stack.enter_context, self.bench.database())
        client = redis_client(self.redis_url)
        self._clients.append(client)
        await client.flushdb()
        return client

    async def start(self, file: str, *arguments: object, ready: str = "", **settings: str) -> Program:
        """Start a program of the learner; with `ready`, return when its output matches. Raises Failed.

        workshop/faults.py describes the settings MOVABLE_CLOCK and SLOW_FILE.
        """
        output = self.bench.new_output()
        if self.redis_url:
            settings = {"REDIS_URL": self.redis_url} | settings
        if MOVABLE_CLOCK in settings:
            settings |= {MOVABLE_CLOCK: str(clock_of(output))}
        environment = default_environment(**settings) | {"PYTHONPATH": str(ROOT)}
        environment.pop(LIFELINE)  # the launcher has one, and ends the program
        words = tuple(str(argument) for argument in arguments)
        pid = await asyncio.to_thread(self.bench.start, self.folder / file, words, output, environment)
        program = Program(file, pid, output, self.bench)
        self._programs.append(program)
        if ready:
            await program.wait_for(ready)
        return program

    async def start_chapter(self, package: str, **settings: str) -> tuple[Program, int]:
        """Start the web server of a chapter. Returns it and its port."""
        port = free_port("127.0.0.1", 0)
        environment = default_environment(PORT=port, **settings)
        environment.pop(LIFELINE)
        output = self.bench.new_output()
        pid = await asyncio.to_thread(self.bench.start, ROOT / package, (), output, environment)
        program = Program(package, pid, output, self.bench)
        self._programs.append(program)
        await program.wait_for("listening on")
        return program, port

    async def start_server(self, file: str, **settings: str) -> "Server":
        """Start a web server of the learner on a free port, and wait until it listens. Raises Failed."""
        port = free_port("127.0.0.1", 0)
        program = await self.start(file, ready="listening on", **(settings | {"PORT": str(port)}))
        return Server(self, program, port)

    async def run(self, file: str, *arguments: object, look: str = "", **settings: str) -> Program:
        """Run a program to its end. Raises Failed if it ends with an error or not in time."""
        program = await self.start(file, *arguments, ready="", **settings)
        if status := await program.wait():
            raise Failed(f"{file} ends with status 0", f"status {status}; {program.tail()}", look or file)
        return program

    def session(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(timeout=ClientTimeout(LIMIT))
        return self._session

    def account(self, records: Iterable[Record], inbox: Inbox, tag: str) -> Account:
        """The lab's account of the emails to <tag>-<number>@example.com."""
        return account(list(records), inbox.arrivals, tag, refusals=inbox.refusals)

    def moment(self, ns: int) -> str:
        return f"{(ns - self.began) / 1e9:.2f} s"

    def story_of_lost(self, found: Account) -> str:
        """What the account says of the first email that is lost, with its id and its moments."""
        lost = [outcome for outcome in found.outcomes if outcome.missing]
        first = lost[0]
        return (
            f"{len(lost)} of {found.acknowledged} accepted emails are lost. The first is {first.id}: "
            f"accepted at {self.moment(first.answered)}, never in the inbox"
        )

    def story_of_twice(self, found: Account) -> str:
        twice = [outcome for outcome in found.outcomes if len(outcome.arrivals) > 1]
        first = twice[0]
        moments = " and ".join(self.moment(at) for at in first.arrivals[:3])
        emails = "1 email" if len(twice) == 1 else f"{len(twice)} emails"
        return f"{emails} arrived twice or more often. The first is {first.id}: it arrived at {moments}"

    def check_account(self, found: Account, look: str, *, twice: int = 0, lost: int = 0) -> None:
        """Raises Failed if more emails are lost or arrived twice, or if emails arrived that were not accepted."""
        if sum(outcome.missing for outcome in found.outcomes) > lost:
            raise Failed("each email that was accepted arrives", self.story_of_lost(found), look)
        if found.duplicated > twice:
            most = f"at most {twice} emails arrive twice" if twice else "no email arrives twice"
            raise Failed(most, self.story_of_twice(found), look)
        if found.unexpected or found.recovered:
            number = found.unexpected + found.recovered
            raise Failed("only accepted emails arrive", f"{number} arrived that had not been accepted", look)


@dataclass
class Server:
    """A web server of the learner, and what it has answered."""

    trial: Trial
    program: Program
    port: int
    records: list[Record] = field(default_factory=list)
    headers: dict[int, dict[str, str]] = field(default_factory=dict)
    """Of each answer, by the email's number."""

    async def ask(self, tag: str, numbers: Iterable[int]) -> list[int]:
        """Request these emails, all at once. Returns the statuses in order; 0: no answer."""
        return [*await asyncio.gather(*[self._ask(tag, number) for number in numbers])]

    async def _ask(self, tag: str, number: int) -> int:
        url = f"http://127.0.0.1:{self.port}/{tag}-{number}@example.com/Exercise/{number}"
        asked = time.perf_counter_ns()
        status, email_id = 0, ""
        try:
            async with self.trial.session().get(url) as response:
                members: dict[str, Any] = await response.json(content_type=None)
                status, email_id = response.status, str(members.get("id", ""))
                self.headers[number] = dict(response.headers)
        except (ClientError, OSError, ValueError, TimeoutError):
            pass
        answered = time.perf_counter_ns()
        self.records.append((number, asked, asked, answered if status else 0, status, email_id))
        return status

    def account(self, inbox: Inbox, tag: str) -> Account:
        return self.trial.account(sorted(self.records), inbox, tag)


def new_email(tag: str, number: int) -> dict[str, str]:
    """The members of an email for a queue or a log."""
    return {
        "id": new_id("example.com"),
        "to": f"{tag}-{number}@example.com",
        "subject": "Exercise",
        "text": str(number),
    }


def accepted(number: int, email_id: str) -> Record:
    """The record of an email that the check has put into a queue itself."""
    now = time.perf_counter_ns()
    return (number, now, now, now, 202, email_id)


async def let_keys_expire(redis: Any, pattern: str) -> None:
    """Delete the keys that have a time limit, as Redis would much later."""
    async for key in redis.scan_iter(pattern):
        if await redis.pttl(key) >= 0:
            await redis.delete(key)


async def until(condition: Callable[[], bool], limit: float = LIMIT) -> bool:
    """Wait until the condition is true. Returns False if it is not after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


async def settled(count: Callable[[], int], enough: int, quiet: float = 0.15, limit: float = LIMIT) -> None:
    """Wait until a number has reached `enough` and not changed for `quiet` seconds, or not changed for `limit`."""
    began = time.monotonic()
    seen, since = count(), began
    while time.monotonic() - began < 3 * limit:  # a wrong program may go on forever
        if (now := count()) != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > (quiet if now >= enough else limit):
            return
        await asyncio.sleep(POLL_SECONDS)


def on_path(path: Path) -> str:
    """The path as the learner types it, from the root of the repository."""
    return os.path.relpath(path, ROOT)
