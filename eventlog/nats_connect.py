"""How a client connects to NATS: the options of a URL, TLS, and why a connection failed."""

import logging
import ssl
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from nats import errors
from nats.aio.client import Client

from .errors import LogError

CONNECT_SECONDS = 1.0
PING_SECONDS = 2  # after two unanswered pings the connection counts as lost

# asyncio logs this whenever a connection that nats-py has upgraded to TLS is closed. It is harmless.
logging.getLogger("asyncio").addFilter(lambda record: "eof_received() has no effect" not in record.getMessage())


class Misconfigured(LogError):
    """The server answers, but trying again does not help: it refuses the login, has an invalid certificate, or has no
    JetStream.
    """


class NoTls(errors.Error):
    """The URL asks for TLS, and the server does not offer it."""


class QuietClient(Client):
    """A client that ends without an error in a background task, and that uses TLS if it has an SSL context."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # nats-py uses TLS only if the server requires it. Without this, it would send the password unencrypted.
        if initial_connection and "tls" in self.options and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise NoTls
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # nats-py writes its buffer to the transport. uvloop raises RuntimeError if the transport is closed already.
        with suppress(OSError, RuntimeError):
            await super()._close(status, do_cbs)


def connect_options(url: str) -> dict[str, Any]:
    """For `Client.connect`. nats-py does not decode `%40` in a password, so the login is taken out of the URL."""
    parts = [urlsplit(one.strip()) for one in url.split(",")]
    first = parts[0]
    options: dict[str, Any] = {
        "servers": [f"nats://{one.netloc.rpartition('@')[2]}" for one in parts],
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0,
        "connect_timeout": CONNECT_SECONDS,
        "ping_interval": PING_SECONDS,
    }
    if first.username is not None and first.password is not None:
        options |= {"user": unquote(first.username), "password": unquote(first.password)}
    elif first.username is not None:
        options["token"] = unquote(first.username)
    if any(one.scheme == "tls" for one in parts):
        options["tls"] = ssl.create_default_context()
    return options


def reason_of(error: Exception) -> Exception:
    """Why a connection failed: Misconfigured if trying again does not help."""
    if isinstance(error, NoTls):
        return Misconfigured("NATS: the server does not offer TLS; write nats:// in place of tls://")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Misconfigured(f"NATS: the certificate of the server is not valid: {error.verify_message}")
    if isinstance(error, errors.AuthorizationError) or "authorization" in str(error).lower():
        return Misconfigured("NATS refuses the login")
    return error
