"""Hosts and ports: what to bind, what to print, what to say when it fails."""

import errno
import socket


def url_of(host: str, port: int) -> str:
    """The address to type: a wildcard is reached by loopback."""
    return f"http://{_bracketed(reachable(host))}:{port}/"


def reachable(host: str) -> str:
    """Where this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def free_port(host: str, port: int) -> int:
    """The port that can be listened on: this one, or any free one for 0. Raises OSError."""
    [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        found: int = probe.getsockname()[1]
        return found


def cannot_listen(host: str, port: int, error: OSError, setting: str = "PORT") -> str:
    """One line for the user who asked for this address."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"HOST: {host} is not a name or an address of this machine"
    if error.errno == errno.EADDRINUSE:
        return f"{setting}: port {port} on {host} is in use; choose another, or 0 for any free one"
    return f"{setting}: cannot listen on {host} port {port}: {error.strerror or error}"
