"""What `make run-N` prints when everything runs: the URLs to send an email, to see it arrive, and to reach Redis."""

import asyncio
from contextlib import suppress

from common.address import reachable, url_of
from common.processes.chapter import chapter_module
from common.processes.supervisor import show
from common.services.service import Service
from common.settings import POSTGRES_USER, SENTINEL_SERVICE, Settings

HEALTHY_SECONDS = 5.0
WEB_ROLES = {"server", "master"}  # the roles that open a port
LABELS = {"inbox": "see it arrive"}  # of the other services: look into it
EXAMPLE = "alice@example.com/Hello/How%20are%20you%3F"


async def greet(settings: Settings, package: str, port: int, services: list[Service], roles: list[str]) -> None:
    """Print the addresses once the server accepts connections."""
    if WEB_ROLES & set(roles):
        url = url_of(settings.host, port)
        await _until_open(reachable(settings.host), port)
        if "worker" in roles:  # it starts at the same time as the server, and may be ready later
            await _until_healthy(reachable(settings.host), port)
        links = getattr(chapter_module(package), "OPEN", {"send an email": EXAMPLE})
        lines = "".join(f"  {label:15} {url}{path}\n" for label, path in links.items())
        show(f"\n{package} listens on {url}\n{lines}")
    else:
        show(f"\n{package} runs as {', '.join(roles)}\n")
    for service in services:
        label = LABELS.get(service.name, "look into it")
        show(f"  {label:15} {address_of(service)} [{service.name} @ {service.pid}]\n")
    show("  stop it all     Ctrl-C (twice: at once)\n\n")


def address_of(service: Service) -> str:
    """The URL of a service for the user."""
    if service.name == "inbox":
        return url_of("127.0.0.1", service.ports["INBOX_PORT"])
    if service.name == "rabbitmq":
        return f"amqp://127.0.0.1:{service.ports['RABBITMQ_PORT']}/"
    hosts = ",".join(f"127.0.0.1:{port}" for port in service.ports.values())
    if service.name == "nats":
        return f"nats://127.0.0.1:{service.ports['NATS_PORT']}"
    if service.name == "nats_cluster":
        return ",".join(f"nats://127.0.0.1:{port}" for port in service.ports.values())
    if service.name == "postgres":
        return f"postgresql://{POSTGRES_USER}@127.0.0.1:{service.ports['POSTGRES_PORT']}/postgres"
    if service.name == "sentinel":
        return f"redis+sentinel://{hosts}/{SENTINEL_SERVICE}/0"
    if service.name == "cluster":
        return f"redis+cluster://{hosts}"
    return f"redis://127.0.0.1:{service.ports['VALKEY_PORT']}/0"


async def _until_open(host: str, port: int) -> None:
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        await asyncio.sleep(0.02)


async def _until_healthy(host: str, port: int) -> None:
    """Wait until an email could be accepted, at most HEALTHY_SECONDS: the user may have to fix what prevents it."""
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
