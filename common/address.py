"""Hosts and ports: what to bind, what to print, and the error message if the address cannot be bound."""

import errno
import ipaddress
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def url_of(host: str, port: int) -> str:
    """The URL to type for a server that listens on `host`."""
    return f"http://{_bracketed(reachable(host))}:{port}/"


def reachable(host: str) -> str:
    """The host by which this machine reaches a server that listens on `host`: loopback for a wildcard address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether this name or address always means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, port: int) -> int:
    """Return `port` if it can be bound, or any free port for 0. Raises OSError."""
    with _bound_socket(host, port) as probe:
        found: int = probe.getsockname()[1]
        return found


@contextmanager
def reserved_port(host: str, port: int, *, shared: bool = False) -> Iterator[int]:
    """Keep a port (0: any free one) for a server that another process starts, and restarts. Raises OSError.

    On Linux, a bound socket keeps the kernel from giving the port to another program that asks for a free one. A server
    that names this port and sets SO_REUSEADDR, as asyncio does, can still listen on it, because the bound socket does
    not listen. Other systems refuse that, so there the port is only checked.

    With `shared`, several servers may listen on it with SO_REUSEPORT. The option is set only after the port is bound,
    so that another program that sets it too does not get the port meanwhile.
    """
    with _bound_socket(host, port) as reservation:
        number: int = reservation.getsockname()[1]
        if shared:
            reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sys.platform != "linux":
            reservation.close()
        yield number


def _bound_socket(host: str, port: int) -> socket.socket:
    [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def cannot_listen(host: str, port: int, error: OSError, setting: str = "PORT") -> str:
    """The error message for the user, in one line; `setting` is the name of the port's setting."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"HOST: {host} is not a name or an address of this machine"
    if error.errno == errno.EADDRINUSE:
        return f"{setting}: port {port} on {host} is in use; choose another, or 0 for any free one"
    return f"{setting}: cannot listen on {host} port {port}: {error.strerror or error}"
