"""Opening an SMTP session: the connection, TLS, EHLO and the login. aiosmtplib does the talking."""

import asyncio
import socket
import ssl
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, cast

import aiohappyeyeballs
import aiosmtplib

from common.mail.errors import LoginFailed, TimedOut, TooManySessions, Unreachable
from common.mail.smtp_conversation import Limits, join_lines, printable
from common.smtp_url import SmtpServer

_LOGINS = ("plain", "login", "cram-md5")  # the first of these that is offered is used; the connection is encrypted
_TRY_LATER = 454  # RFC 4954, 6: the server could not check the login


class Opened(NamedTuple):
    transport: asyncio.Transport
    extensions: set[str]
    """What the server offered in its answer to EHLO, in lower case."""


async def open_connection(
    server: SmtpServer, tls: ssl.SSLContext, limits: Limits, login: AbstractAsyncContextManager[None]
) -> Opened:
    """Connect, encrypt and log in. Raises Unreachable, TooManySessions, TimedOut or LoginFailed.

    `login` is entered for the login only, if there is one.
    STARTTLS is used where it is offered, and demanded where a password would cross a network without it.
    """
    demand_tls = server.password is not None and not server.on_loopback
    smtp = aiosmtplib.SMTP(
        hostname=server.host,
        use_tls=server.tls,
        start_tls=False if server.tls else demand_tls or None,
        tls_context=tls,
        local_hostname=_ehlo_name(),
        timeout=None,
    )
    try:
        sock = await _connect(server, limits.connect)
        async with asyncio.timeout(limits.greeting):
            await smtp.connect(sock=sock)
            if smtp.is_ehlo_or_helo_needed:
                await _greet(smtp)
            if server.user is not None:
                async with login:
                    await _log_in(smtp, server.user, server.password or "")
    except TimeoutError:
        _abort(smtp)
        raise TimedOut(f"no session with {server} within {limits.greeting:g} s") from None
    except (aiosmtplib.SMTPException, OSError, UnicodeError) as error:  # UnicodeError: a host that IDNA refuses
        _abort(smtp)
        kind = TooManySessions if getattr(error, "code", None) == 421 else Unreachable
        raise kind(f"no session with {server}: {_words(error)}") from error
    except BaseException:
        _abort(smtp)
        raise
    return Opened(cast(asyncio.Transport, smtp.transport), set(smtp.esmtp_extensions))


def _abort(smtp: aiosmtplib.SMTP) -> None:
    if smtp.transport is not None:
        smtp.transport.abort()  # type: ignore[attr-defined]
    smtp.close()


async def _greet(smtp: aiosmtplib.SMTP) -> None:
    try:
        await smtp.ehlo()
    except aiosmtplib.SMTPHeloError:  # a server from before 1995
        await smtp.helo()


async def _log_in(smtp: aiosmtplib.SMTP, user: str, password: str) -> None:
    """Log in with a single AUTH command: a server counts failed ones and may lock the account."""
    method = next((name for name in _LOGINS if name in smtp.supported_auth_methods), None)
    if method is None:
        raise LoginFailed("the mail server offers no login that is known here (AUTH PLAIN, LOGIN or CRAM-MD5)")
    log_in = {"plain": smtp.auth_plain, "login": smtp.auth_login, "cram-md5": smtp.auth_crammd5}[method]
    try:
        await log_in(user, password)
    except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError):
        raise
    except aiosmtplib.SMTPException as error:
        failed = LoginFailed(f"the mail server does not accept the login: {_words(error)}")
        failed.put_off = getattr(error, "code", None) == _TRY_LATER
        raise failed from None


async def _connect(server: SmtpServer, seconds: float) -> socket.socket:
    """A TCP connection whose dead peer is noticed, however long a read waits. Raises OSError or TimedOut."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            places = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
            sock = await aiohappyeyeballs.start_connection(places, happy_eyeballs_delay=0.25)
    except TimeoutError:
        raise TimedOut(f"no connection to {server} within {seconds:g} s") from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):  # seconds; not on macOS
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock


def _words(error: Exception) -> str:
    """The server's reply, where there is one, or the system's reason."""
    code, message = getattr(error, "code", None), getattr(error, "message", None)
    return f"{code} {join_lines(map(printable, message.splitlines()))}" if code and message else printable(str(error))


def _ehlo_name() -> str:
    """The name for EHLO: ours if it is a full one, else an address literal (RFC 5321, 4.1.4). Asks no DNS."""
    name = socket.gethostname()
    return name if "." in name and name.isascii() else "[127.0.0.1]"


def tls_context(server: SmtpServer) -> ssl.SSLContext:
    """Certificates are checked, against the system's authorities or SSL_CERT_FILE, except on loopback.

    There a development server has a self-signed certificate, and a program that could read the wire could read this
    process.
    """
    context = ssl.create_default_context()
    if server.on_loopback:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
