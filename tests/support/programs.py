"""The project's programs as tests use them: real processes on free ports, always ended after the test."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit
from uuid import uuid4

import psutil

from common.settings import setting_names
from lab.harness.machine import alive
from lab.harness.processes import Child, ChildFailed, end

ROOT = Path(__file__).parents[2]

LIMIT = 60.0  # seconds that a condition may take to come true, even on a slow machine

START_SECONDS = 120.0  # for RabbitMQ: an Erlang node needs 5 on an idle machine

LONGEST_PAUSE = 0.1  # seconds between two looks at a condition: each look may be a request to the program under test

T = TypeVar("T")

_numbers = count(1)


def wait_until(condition: Callable[[], T | None], what: str, limit: float = LIMIT) -> T:
    """Wait until the condition is true, and return its value. Fails after `limit` seconds."""
    deadline, pause = time.monotonic() + limit, 0.01
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(pause)
        pause = min(1.2 * pause, LONGEST_PAUSE)
    return result


async def until(condition: Callable[[], Any], what: str = "the condition is true", limit: float = LIMIT) -> Any:
    """Let the event loop run until the condition is true, and return its value. Fails after `limit` seconds.

    The condition may be a coroutine function.
    """
    try:
        async with asyncio.timeout(limit):
            while True:
                result = condition()
                if asyncio.iscoroutine(result):
                    result = await result
                if result:
                    return result
                await asyncio.sleep(0.001)
    except TimeoutError as error:
        raise AssertionError(f"not within {limit:g} s: {what}") from error


def a_name() -> str:
    """A new name, so that each test sees its own emails only."""
    return uuid4().hex[:12]


def someone() -> str:
    """A new address."""
    return f"{a_name()}@example.com"


def is_alive(process: psutil.Process | int) -> bool:
    """Whether this process, or a process with this pid, runs. A zombie does not."""
    try:
        return alive(psutil.Process(process) if isinstance(process, int) else process)
    except psutil.NoSuchProcess:
        return False


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until every thread of the process has stopped: until then one can still answer."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(state == "T" for state in thread_states(pid)), f"process {pid} has stopped")


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """The processes do nothing as long as the block runs."""
    for pid in pids:
        freeze(pid)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def thread_states(pid: int) -> Iterator[str]:
    """One letter for each thread (proc(5), stat). Without /proc, none."""
    for file in Path("/proc").glob(f"{pid}/task/*/stat"):
        with suppress(OSError):  # the thread has ended
            yield file.read_text().rpartition(") ")[2][0]


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(
    url: str, path: str = "/", method: str = "GET", headers: dict[str, str] | None = None, body: object = None
) -> Answer:
    """One HTTP request. The path is sent as it is, neither normalised nor encoded again."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=LIMIT)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, body=data, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read().decode(errors="replace"))
    finally:
        connection.close()


def email_path(to: str, subject: str, text: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in (to, subject, text))


def clean_environment() -> dict[str, str]:
    """The environment of the shell that runs the tests, without the project's settings."""
    return {name: value for name, value in os.environ.items() if name not in SETTINGS}


@cache
def outputs() -> "tempfile.TemporaryDirectory[str]":
    """The folder for the output of programs. It is deleted when the tests end."""
    return tempfile.TemporaryDirectory(prefix="six-ways-")


class Program(Child):
    """A child process of the lab, in the environment of the shell that runs the tests. It fails a test."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path = ROOT) -> None:
        """In another `folder`, a copy of the repository, the program has the default retries, as a reader does."""
        environment = clean_environment() | (SHORT_RETRIES if folder == ROOT else {}) | environment
        file = Path(outputs().name) / f"{next(_numbers)}.log"
        super().__init__(command[0], command, environment, file, folder, lifeline=False)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, limit: float = LIMIT) -> re.Match[str]:
        """Wait until a line matches. Fails at once when the program ends without it."""
        try:
            return self.find(pattern, limit)
        except ChildFailed as error:
            raise AssertionError(f"no line {pattern!r} within {limit:g} s; {error}:\n{self.text()}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM, limit: float = LIMIT) -> int:
        """Send the signal, wait for the end, and return the exit status.

        Fails if the program or a descendant is still alive after `limit` seconds, and kills it.
        """
        left = end(self.process, limit, alone=True, number=number, orphan_seconds=limit)
        assert not left, f"left behind: {left}"
        return self.process.returncode


def free_ports(count: int) -> list[int]:
    """`count` different free ports of loopback."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def closed_port() -> Iterator[int]:
    """A port of loopback that no program listens on while the block runs.

    It is bound, so that no other program gets it. A program may listen on it with SO_REUSEPORT.
    """
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


SHORT_RETRIES = {"ATTEMPTS": "5", "RETRY_PAUSES_SECONDS": "0.5 1 2 4"}  # by default it takes a day to give up

# Settings that the shell that runs the tests may have, and that tests must not inherit.
SETTINGS = {*setting_names().values(), "WORKER_NAME", "MAKELEVEL", "MAKEFLAGS", "MFLAGS"}


@contextmanager
def open_users_lock(data_dir: Path, name: str) -> Iterator[None]:
    """Hold the lock of a service's users, so that the service does not stop because it has none."""
    import fcntl

    data_dir.mkdir(parents=True, exist_ok=True)
    with open(data_dir / f"{name}.users", "w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield


class Strategy:
    """A strategy, started by `make run-N`."""

    def __init__(self, name: str, program: Program, url: str, engine: str = "") -> None:
        self.name = name
        self.on_rabbitmq = engine == "rabbitmq"
        self.on_jetstream = engine == "jetstream"
        self.program = program
        self.url = url

    def ask(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
        return ask(self.url, path, method, headers)

    def send(self, to: str, subject: str = "Hello", text: str = "How are you?") -> Answer:
        return self.ask(email_path(to, subject, text))

    def reason_of_504(self) -> str:
        """Send an email whose answer is 504 with its id. Returns the reason."""
        answer = self.send(someone())
        assert answer.status == 504
        assert answer.json["id"]
        return str(answer.json["error"]["reason"])

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = self.ask("/stats").json
        return stats

    def held(self) -> int:
        """How many emails are waiting or in flight, in one reading of the strategy's counters."""
        stats = self.stats()
        return int((stats["waiting"] or 0) + (stats["in_flight"] or 0))

    def pid(self, role: str = "server") -> int:
        """The pid of the process with this role: the last one that the output names."""
        return wait_until(lambda: self._last_pid(role), f"a line of the {role}")

    def _last_pid(self, role: str) -> int | None:
        """Searches from the end, because the output of a strategy under load is long."""
        name = re.compile(rf"(?:^\[|the ){role} @ (\d+)(?:\]| has started)")
        return next((int(found[1]) for line in reversed(self.program.lines) if (found := name.search(line))), None)

    def kill(self, *roles: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End the processes with these roles, and wait until new ones have been started."""
        killed = {role: self.pid(role) for role in roles}
        for pid in killed.values():
            os.kill(pid, number)
        for role, pid in killed.items():
            self.wait_for_another(role, pid)

    def wait_for_another(self, role: str, pid: int) -> None:
        """Wait until the runner has logged the end of this process, and another process has its role."""
        self.program.wait_for_line(rf"{role} @ {pid} (was killed by SIG[A-Z]+|ended with .*); starting it again")
        wait_until(lambda: self.pid(role) != pid, f"another {role}")

    def healthy(self) -> bool:
        """Whether the strategy can accept an email now."""
        try:
            return self.ask("/health").status == 200
        except OSError:
            return False


@contextmanager
def running_strategy(name: str, data_dir: Path, **environment: str) -> Iterator[Strategy]:
    """Start a strategy by `make run-N` on a free port. Stop it after the block; fails if a process is left behind."""
    ports = {"PORT": "0", "VALKEY_PORT": "0", "RABBITMQ_PORT": "0", "NATS_PORT": "0"}
    command, settings = ["make", f"run-{name[0]}"], ports | {"DATA_DIR": str(data_dir)}
    listens, taken = rf"^{name} listens on (http://\S+)/$", r"(?:^|\] )PORT: port \d+ on \S+ is in use"
    limit = START_SECONDS if {"QUEUE", "REDIS"} & {*environment} else LIMIT
    program = Program(command, settings | environment)
    try:
        first = program.wait_for_line(f"{listens}|{taken}", limit)
        if first[1] is None:  # a program of another test has taken the free port
            program.stop()
            program = Program(command, settings | environment)
        url = program.wait_for_line(listens, limit)[1]
        yield Strategy(name, program, url, environment.get("QUEUE") or environment.get("LOG", ""))
    finally:
        program.stop()
