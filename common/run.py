"""`make run-N`: all roles of one strategy in this terminal, with the embedded services they need.

Each role is a child process; its lines are prefixed with `[role @ pid]`. A child that dies unasked is started again
after a second. Ctrl-C stops everything in order: the roles as their package lists them, then the services that no other
terminal uses. `make services` is the same without roles.
"""

import asyncio
import importlib
import os
import re
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from common.address import cannot_listen, free_port, reachable, url_of
from common.process import LIFELINE
from common.services import LOOK_SECONDS, PORTS, Service
from common.settings import USAGE_ERROR, Settings, exit_with_usage_error, read_settings

RESTART_SECONDS = 1.0
HEALTHY_SECONDS = 5.0
STOP_SECONDS = 20.0  # and DRAIN_SECONDS: longer than any role grants itself; then it is killed
RELAY_SECONDS = 2.0  # for the last lines of a child that has ended
PREFIXED = re.compile(rb"\[[a-z ]+ @ \d+\] ")  # a role that speaks for children of its own
WEB_ROLES = {"server", "master"}  # the others listen nowhere
LABELS = {"inbox": "see it arrive", "valkey": "look into it"}
EXAMPLE = "alice@example.com/Hello/How%20are%20you%3F"


class Stop:
    """Somebody's wish that all of this ends. The first one asks the children, a second one kills them."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.impatient = asyncio.Event()

    def request(self) -> None:
        if self.requested.is_set():
            self.impatient.set()
        self.requested.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not past the wish to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.requested.wait(), seconds)


class Child:
    """One role as a process that is kept running; with `once`, until it ends."""

    def __init__(self, package: str, role: str, environment: dict[str, str], stop: Stop, *, once: bool = False) -> None:
        self.role = role
        self._command = [sys.executable, "-m", package, role]
        self._environment = os.environ | environment | {LIFELINE: "1", "PYTHONUNBUFFERED": "1"}
        self._stop = stop
        self._once = once
        self._process: asyncio.subprocess.Process | None = None

    async def keep_running(self) -> int:
        """Return 0 at the end of all, or the exit status of one that must not be started again."""
        while not self._stop.requested.is_set():
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,  # the lifeline: the child ends when this process does
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                process_group=0,  # Ctrl-C goes to the parent alone
            )
            if self._stop.requested.is_set():  # while it was being started, when nobody could stop it yet
                process.terminate()
            await self._relay_output(process)
            status = await process.wait()
            if self._stop.requested.is_set():
                return 0
            if status == USAGE_ERROR or self._once:
                return status
            say(f"{self.role} @ {process.pid} {how_it_ended(status)}; starting it again in {RESTART_SECONDS:g} s")
            await self._stop.sleep(RESTART_SECONDS)
        return 0

    async def _relay_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        rest = b""
        while chunk := await process.stdout.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            self._say(process.pid, lines)
        self._say(process.pid, [rest] if rest else [])

    def _say(self, pid: int, lines: list[bytes]) -> None:
        prefix = f"[{self.role} @ {pid}] "
        text = "".join([f"{'' if PREFIXED.match(line) else prefix}{line.decode(errors='replace')}\n" for line in lines])
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:  # `make run-1 | head`
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            self._stop.request()

    async def end(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL for a child that does not end within so many seconds."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _first(process.wait(), self._stop.impatient.wait())
        if process.returncode is None:
            say(f"{self.role} @ {process.pid} does not end; killing it")
            process.kill()
            await process.wait()


async def _first(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Wait for whichever ends first; the others are cancelled."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def how_it_ended(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"


def say(line: str) -> None:
    print(f"[runner @ {os.getpid()}] {line}", flush=True)


async def run(settings: Settings, package: str) -> int:
    """Run the roles of a strategy until stopped. The exit status: 0, or 2 after a mistake in the settings."""
    stop = stop_on_signals()
    roles = chosen_roles(settings, package)
    serves = bool(WEB_ROLES & set(roles))
    port = checked_port(settings) if serves else settings.port
    with ExitStack() as stack:
        services = [stack.enter_context(Service(settings, name)) for name in needed_services(settings, package)]
        if serves and settings.port == 0:  # once more, for what was free may be taken by now
            port = checked_port(settings)
        environment = {name: str(number) for s in services for name, number in s.ports.items()} | {"PORT": str(port)}
        children = [Child(package, role, environment, stop, once=settings.demo) for role in roles]
        tasks = [asyncio.create_task(child.keep_running()) for child in children]
        helpers = [
            asyncio.create_task(watch(services, stop)),
            asyncio.create_task(greet(settings, package, port, services, roles)),
        ]
        await asyncio.wait([*tasks, asyncio.create_task(stop.requested.wait())], return_when=asyncio.FIRST_COMPLETED)
        stop.requested.set()
        for child in children:
            await child.end(STOP_SECONDS + settings.drain_seconds)
        for helper in helpers:
            helper.cancel()
        # What a child leaves running may hold its output open: do not wait for that.
        ended, left = await asyncio.wait(tasks, timeout=RELAY_SECONDS)
        for task in left:
            task.cancel()
        return max((task.result() for task in ended), default=0)


async def run_services(settings: Settings) -> int:
    stop = stop_on_signals()
    with ExitStack() as stack:
        services = [stack.enter_context(Service(settings, name)) for name in PORTS]
        places = " and ".join(f"{service.name} is at {address_of(service)}" for service in services)
        say(f"the {places}; Ctrl-C stops them")
        await watch(services, stop)
    return 0


def stop_on_signals() -> Stop:
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.request)
    return stop


async def watch(services: list[Service], stop: Stop) -> None:
    """Start a service again that died, and stop when `make` is gone: a killed make tells nobody."""
    parent = os.getppid()
    while not stop.requested.is_set():
        await stop.sleep(LOOK_SECONDS)
        for service in services:
            if service.ensure():
                say(f"{service.name} was gone; it runs again")
        if "MAKELEVEL" in os.environ and os.getppid() != parent and not stop.requested.is_set():
            stop.request()


def find_package(number: str) -> str:
    """The folder of strategy `number`: "5" -> "5_remote_queue"."""
    found = sorted(path.parent.name for path in Path().glob(f"{number}_*/__main__.py"))
    if not found or not number.isdigit():
        there = ", ".join(sorted(path.parent.name[0] for path in Path().glob("[1-9]_*/__main__.py")))
        exit_with_usage_error(f"there is no strategy {number}; there are {there}")
    return found[0]


def chosen_roles(settings: Settings, package: str) -> list[str]:
    if settings.demo:
        if demo := getattr(importlib.import_module(package), "DEMO", None):
            return [demo]
        exit_with_usage_error(f"DEMO: {package} has none")
    roles: tuple[str, ...] = importlib.import_module(package).ROLES
    if settings.role is not None and settings.role not in roles:
        exit_with_usage_error(f"ROLE: {package} has the roles {', '.join(roles)}")
    chosen = roles if settings.role is None else (settings.role,)
    return [role for role in chosen for _ in range(settings.workers if role == "worker" else 1)]


def needed_services(settings: Settings, package: str) -> list[str]:
    """The package's services, without those whose place a URL has taken."""
    own = {"inbox": settings.smtp_url, "valkey": settings.redis_url}
    return [name for name in importlib.import_module(package).SERVICES if own[name] is None]


def checked_port(settings: Settings) -> int:
    """The port for the server, decided here so that a server that is started again comes back to the same one."""
    try:
        return free_port(settings.host, settings.port)
    except OSError as error:
        exit_with_usage_error(cannot_listen(settings.host, settings.port, error))


async def greet(settings: Settings, package: str, port: int, services: list[Service], roles: list[str]) -> None:
    """Say where everything is, once it is there."""
    if WEB_ROLES & set(roles):
        url = url_of(settings.host, port)
        await _until_open(reachable(settings.host), port)
        if "worker" in roles:  # it starts at the same time as the server
            await _until_healthy(reachable(settings.host), port)
        print(f"\n{package} listens on {url}\n  send an email   {url}{EXAMPLE}")
    else:
        print(f"\n{package} runs as {', '.join(roles)}")
    for service in services:
        print(f"  {LABELS[service.name]:15} {address_of(service)}")
    print("  stop it all     Ctrl-C\n", flush=True)


def address_of(service: Service) -> str:
    """Where people find it."""
    if service.name == "inbox":
        return url_of("127.0.0.1", service.ports["INBOX_PORT"])
    return f"redis://127.0.0.1:{service.ports['VALKEY_PORT']}/0"


async def _until_open(host: str, port: int) -> None:
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        await asyncio.sleep(0.02)


async def _until_healthy(host: str, port: int) -> None:
    """Wait until an email could be accepted, but not for ever: what keeps it from that may have to be seen."""
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(HEALTHY_SECONDS):
            while b" 200 " not in await _ask_health(host, port):  # noqa: ASYNC110  another process
                await asyncio.sleep(0.02)


async def _ask_health(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
    status = await reader.readline()
    writer.close()
    return status


@contextmanager
def own_terminal() -> Iterator[None]:
    """Let Ctrl-C reach this process and not the `make` it was started from.

    Both are in the terminal's foreground process group, and make, hit by SIGINT, would report an error after even the
    cleanest end. So this process makes a group of its own and moves it to the foreground, as a shell does for a job.
    Ctrl-Z is ignored meanwhile: no shell would know of the stopped group.
    """
    before = os.getpgrp()
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        yield
        return
    try:
        if "MAKELEVEL" not in os.environ or os.tcgetpgrp(terminal) != before or before == os.getpid():
            yield
            return
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())
        try:
            yield
        finally:
            with suppress(OSError):
                os.tcsetpgrp(terminal, before)
    finally:
        os.close(terminal)


def main() -> None:
    [what] = sys.argv[1:]
    settings = read_settings()
    with own_terminal():
        sys.exit(asyncio.run(run_services(settings) if what == "services" else run(settings, find_package(what))))


if __name__ == "__main__":
    main()
