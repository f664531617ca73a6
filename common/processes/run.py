"""`make run-N`: all roles of one strategy in this terminal, with the embedded services they need.

Each role is a child process; its lines are prefixed with `[role @ pid]`. A child that ends by itself is started again
after a second. Ctrl-C stops everything in order: first the roles in the order of their package's ROLES, then the
services that no other terminal uses. `make services` runs the services alone.
"""

import signal

if __name__ == "__main__":
    # Reset the signal before the other imports: Ctrl-C during an import raises KeyboardInterrupt, which Python ignores
    # in some places (a callback of importlib). Nothing has been started yet that would have to be stopped in order.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import asyncio
import os
import re
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from common.address import cannot_listen, reserved_port
from common.processes.chapter import chapter_module
from common.processes.greeting import WEB_ROLES, address_of, greet
from common.processes.pid_files import PidFile
from common.processes.process import LIFELINE, stop_signals
from common.processes.rabbitmq_role import refuse_unusable
from common.processes.redis_role import refuse_unsupported
from common.processes.steps import check_step
from common.processes.supervisor import Child, Stop, say
from common.processes.terminal import own_terminal
from common.services.service import CHECK_SECONDS, CannotStart, Service, StartStopped
from common.settings import Settings, checked_port, exit_with_usage_error, read_settings

STOP_SECONDS = 20.0  # plus DRAIN_SECONDS: longer than any role needs to stop; after that it is killed
RESTART_CAP_SECONDS = 5.0  # the longest pause between two starts of a service that keeps ending (a full disk)


async def run(settings: Settings, package: str) -> int:
    """Run the roles of a strategy until stopped. Returns the exit status: 0, or 2 if a setting is wrong."""
    stop = stop_on_signals()
    roles = chosen_roles(settings, package)
    serves = bool(WEB_ROLES & set(roles))
    port = checked_port(settings) if serves else settings.port
    _, services_of_all = roles_and_services(settings, package)
    if settings.on_cluster and "valkey" in services_of_all:
        refuse_on_cluster(settings, package)
    if settings.redis_url is not None and "valkey" in services_of_all:
        await refuse_unsupported(settings.redis)
    if "rabbitmq" in services_of_all:
        await refuse_unusable(settings)
    if settings.nats_url is not None and "nats" in services_of_all:
        await chapter_module(f"{package}.jetstream").refuse_unusable(settings)
    with ExitStack() as stack:
        try:
            services = await start_services(settings, needed_services(settings, package), stack, stop)
        except StartStopped:
            return 0
        if serves:  # with PORT=0, choose again, because another process may have taken the port since
            port = reserve_port(settings, port, stack)
        environment = {name: str(number) for s in services for name, number in s.ports.items()} | {"PORT": str(port)}
        if settings.servers > 1:
            environment["SIBLINGS"] = stack.enter_context(
                TemporaryDirectory(prefix="six-ways-", ignore_cleanup_errors=True)
            )
        pids = {role: PidFile(settings.data_dir, role) for role in roles}
        children = [Child(package, role, environment, stop, pids[role], once=settings.demo) for role in roles]
        tasks = [asyncio.create_task(child.keep_running()) for child in children]
        helpers = [
            asyncio.create_task(watch(services, stop)),
            asyncio.create_task(greet(settings, package, port, services, roles)),
        ]
        await asyncio.wait([*tasks, asyncio.create_task(stop.requested.wait())], return_when=asyncio.FIRST_COMPLETED)
        stop.requested.set()
        for role in dict.fromkeys(roles):  # one role after another, the processes of a role at the same time
            await asyncio.gather(
                *[child.end(STOP_SECONDS + settings.drain_seconds) for child in children if child.role == role]
            )
        for helper in helpers:
            helper.cancel()
        await asyncio.wait(tasks)
        return max(task.result() for task in tasks)


async def run_services(settings: Settings) -> int:
    stop = stop_on_signals()
    with ExitStack() as stack:
        try:
            services = await start_services(settings, all_services(settings), stack, stop)
        except StartStopped:
            return 0
        places = " and ".join(f"{service.name} is at {address_of(service)}" for service in services)
        say(f"the {places}; Ctrl-C stops them")
        await watch(services, stop)
    return 0


async def start_services(settings: Settings, names: Iterable[str], stack: ExitStack, stop: Stop) -> list[Service]:
    """Start the services in a thread: a start may take seconds, and Ctrl-C must work meanwhile. Raises StartStopped."""
    services = []
    for name in names:
        service = Service(settings, name, stop.requested.is_set)
        await asyncio.to_thread(stack.enter_context, service)
        services.append(service)
    if stop.requested.is_set():
        raise StartStopped
    return services


def stop_on_signals() -> Stop:
    """Stop on SIGINT, SIGTERM and SIGHUP, and when the lifeline closes that a program which runs `make` may provide."""
    stop, loop = Stop(), asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, stop.request)

    def read_lifeline() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            loop.remove_reader(sys.stdin.fileno())
            stop.request()

    if LIFELINE in os.environ:
        loop.add_reader(sys.stdin.fileno(), read_lifeline)
    return stop


async def watch(services: list[Service], stop: Stop) -> None:
    """Start services that have died again, and stop when `make` has ended: a killed make sends no signal."""
    parent = os.getppid()
    pauses = dict.fromkeys(services, CHECK_SECONDS)  # how long to wait after the next failure
    due = dict.fromkeys(services, 0.0)  # time.monotonic()
    while not stop.requested.is_set():
        await stop.sleep(CHECK_SECONDS)
        for service in services:
            if time.monotonic() >= due[service] and not stop.requested.is_set():
                pauses[service] = await restart_if_dead(service, pauses[service])
                due[service] = time.monotonic() + (pauses[service] if pauses[service] > CHECK_SECONDS else 0.0)
        make_has_ended = "MAKELEVEL" in os.environ and (os.getppid() != parent or hung_up(parent))
        if make_has_ended and not stop.requested.is_set():
            stop.request()


async def restart_if_dead(service: Service, pause: float) -> float:
    """Start the service again if it has ended. Returns the seconds until the next check: longer after each start."""
    try:
        if not await asyncio.to_thread(service.ensure):  # it may take seconds; the roles' output must be relayed
            return CHECK_SECONDS
    except StartStopped:
        return pause
    except (CannotStart, OSError) as error:
        say(f"{service.name} does not start: {error}")
    else:
        say(f"{service.name} was not running; it has been started again @ {service.pid}")
    return min(2 * pause, RESTART_CAP_SECONDS)


def hung_up(make: int) -> bool:
    """Whether `make` has received SIGHUP. It then waits for this process and does not pass the signal on.

    On Linux we can see that it no longer catches the signal. On other systems this always returns False.
    """
    try:
        status = Path(f"/proc/{make}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
    ignored = re.search(r"^SigIgn:\s*(\w+)$", status, re.MULTILINE)
    if caught is None or ignored is None:
        return False
    # GNU make catches SIGHUP and SIGTERM alike; `nohup` makes it ignore SIGHUP.
    hup, term = 1 << (signal.SIGHUP - 1), 1 << (signal.SIGTERM - 1)
    return bool(int(caught[1], 16) & term) and not (int(caught[1], 16) | int(ignored[1], 16)) & hup


def find_package(number: str) -> str:
    """The folder of strategy `number`: "5" -> "5_remote_queue"; an example is its own package."""
    if number.startswith("examples."):
        return number
    found = sorted(path.parent.name for path in Path().glob(f"{number}_*/__main__.py"))
    if not found or not number.isdigit():
        there = ", ".join(sorted(path.parent.name[0] for path in Path().glob("[1-9]_*/__main__.py")))
        exit_with_usage_error(f"there is no strategy {number}; choose from {there}")
    return found[0]


def roles_and_services(settings: Settings, package: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of the chapter, or those of the engine on which it runs in place of its own."""
    chapter = chapter_module(package)
    if settings.queue != "rabbitmq" or not hasattr(chapter, "ON_RABBITMQ"):
        engines: dict[str, tuple[str, ...]] = getattr(chapter, "ENGINES", {})
        if engines and settings.nats_topology != "single" and (settings.log != "jetstream" or settings.step):
            exit_with_usage_error(f"NATS: {settings.nats_topology} needs LOG=jetstream")
        return chapter.ROLES, chapter.SERVICES if settings.step else engines.get(settings.log, chapter.SERVICES)
    if settings.step or settings.demo:
        exit_with_usage_error(f"QUEUE: the steps and the demonstration of {package} run on its own engine only")
    roles, services = chapter.ON_RABBITMQ
    return roles, services


def all_services(settings: Settings) -> list[str]:
    """What `make services` starts: RabbitMQ and NATS only where the settings choose them."""
    rabbitmq = ["rabbitmq"] if settings.queue == "rabbitmq" else []
    return ["inbox", "valkey", *rabbitmq, *([in_topology(settings, "nats")] if settings.log == "jetstream" else [])]


def chosen_roles(settings: Settings, package: str) -> list[str]:
    if settings.demo:
        if demo := getattr(chapter_module(package), "DEMO", None):
            return [demo]
        exit_with_usage_error(f"DEMO: {package} has no demonstration")
    roles, _ = roles_and_services(settings, package)
    if check_step(settings, package):
        roles = tuple(role for role in roles if role != "scheduler")
    if settings.role is not None and settings.role not in roles:
        exit_with_usage_error(f"ROLE: {package} has the roles {', '.join(roles)}")
    if settings.workers > 1 and "worker" not in roles:
        exit_with_usage_error(f"WORKERS: {package} runs one process of each role")
    if settings.servers > 1 and "server" not in roles:
        exit_with_usage_error(f"SERVERS: {package} runs one web server, which its master starts")
    idle = getattr(chapter_module(package), "NOT_NEEDED", ())
    chosen = [role for role in roles if role not in idle] if settings.role is None else [settings.role]
    processes = {"server": settings.servers, "worker": settings.workers}
    return [role for role in chosen for _ in range(processes.get(role, 1))]


def needed_services(settings: Settings, package: str) -> list[str]:
    """The package's services, except those that SMTP_URL, REDIS_URL, AMQP_URL, NATS_URL or DATABASE_URL replaces."""
    own = {
        "inbox": settings.smtp_url,
        "valkey": settings.redis_url,
        "rabbitmq": settings.amqp_url,
        "nats": settings.nats_url,
        "postgres": settings.database_url,
    }
    _, services = roles_and_services(settings, package)
    needed = [name for name in services if own[name] is None]
    return [in_topology(settings, name) for name in needed]


def in_topology(settings: Settings, name: str) -> str:
    """The service, or the one with several servers that REDIS or NATS chooses instead."""
    if name == "valkey" and settings.topology != "single":
        return settings.topology
    return f"nats_{settings.nats_topology}" if name == "nats" and settings.nats_topology != "single" else name


def refuse_on_cluster(settings: Settings, package: str) -> None:
    """The steps, the demonstration and the examples use keys of several slots."""
    if settings.step or settings.demo or package.startswith("examples."):
        name = "REDIS" if settings.redis_url is None else "REDIS_URL"
        exit_with_usage_error(f"{name}: only the full designs of strategies 4 to 6 run on a cluster")


def reserve_port(settings: Settings, port: int, stack: ExitStack) -> int:
    """Choose the server's port, here and not in the server, so that a restarted server has the same port.

    Without the reservation, another program that asks for a free port could get it before the server listens on it.
    """
    try:
        return stack.enter_context(
            reserved_port(settings.host, port if settings.port else 0, shared=settings.servers > 1)
        )
    except OSError as error:
        exit_with_usage_error(cannot_listen(settings.host, settings.port, error))


def main() -> None:
    if len(sys.argv) != 2:
        exit_with_usage_error("usage: python -m common.processes.run [1 to 6 | services]")
    [what] = sys.argv[1:]
    settings = read_settings()
    with own_terminal():
        sys.exit(asyncio.run(run_services(settings) if what == "services" else run(settings, find_package(what))))


if __name__ == "__main__":
    main()
