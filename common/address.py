"""Hosts and ports: what to bind, what to print, and the error message if the address cannot be bound."""

import errno
import socket


def url_of(host: str, port: int) -> str:
    """The URL to type for a server that listens on `host`."""
    return f"http://{_bracketed(reachable(host))}:{port}/"


def reachable(host: str) -> str:
    """The host by which this machine reaches a server that listens on `host`: loopback for a wildcard address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def free_port(host: str, port: int) -> int:
    """Return `port` if it can be bound, or any free port for 0. Raises OSError."""
    [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        found: int = probe.getsockname()[1]
        return found


def cannot_listen(host: str, port: int, error: OSError, setting: str = "PORT") -> str:
    """The error message for the user, in one line; `setting` is the name of the port's setting."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"HOST: {host} is not a name or an address of this machine"
    if error.errno == errno.EADDRINUSE:
        return f"{setting}: port {port} on {host} is in use; choose another, or 0 for any free one"
    return f"{setting}: cannot listen on {host} port {port}: {error.strerror or error}"
