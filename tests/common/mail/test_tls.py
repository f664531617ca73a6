"""Real servers with TLS and login: aiosmtpd on loopback, with certificates created for the test."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from asynckit.ids import new_id
from common.mail.emails import Email
from common.mail.errors import LoginFailed, Unavailable
from common.mail.mailer import Mailer
from common.mail.smtp_conversation import Limits
from common.mail.smtp_opening import tls_context
from common.mail.smtp_session import SmtpSession
from common.smtp_url import SmtpServer
from tests.support.smtp_peer import settings

# aiosmtpd warns about a login without TLS, which two of these tests use on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

USER, PASSWORD = "jo@example.com", "p:/@w"  # what a URL must percent-encode
LOGIN = "jo%40example.com:p%3A%2F%40w@"


class Keeper:
    """Keeps the messages that arrive, and how they were sent."""

    def __init__(self) -> None:
        self.kept: list[tuple[Envelope, bool, Any]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.kept.append((envelope, session.ssl is not None, session.auth_data))
        return "250 kept"


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=good, handled=False, auth_data=data.login)


@asynccontextmanager
async def mail_server(keeper: Keeper, over_tls: bool = False, **options: Any) -> AsyncIterator[int]:
    certificate = trustme.CA().issue_cert("localhost", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if not over_tls and options.pop("starttls", True):
        options |= {"tls_context": context}
    servers: list[SMTP] = []

    def connection() -> SMTP:
        servers.append(SMTP(keeper, authenticator=authenticate, enable_SMTPUTF8=True, **options))
        return servers[-1]

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", 0, ssl=context if over_tls else None)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connected in servers:
            if isinstance(connected.transport, asyncio.Transport):
                connected.transport.abort()
        await asyncio.sleep(0)


def an_email() -> Email:
    return Email(new_id("example.com"), "bob@example.com", "Grüße", "ä\n.\nö")


async def send_two(url: str, **more: Any) -> None:
    async with Mailer(settings(smtp_url=url, **more)) as mailer:
        await mailer.send(an_email())
        await mailer.send(an_email())


async def test_an_email_is_sent_without_tls_and_login() -> None:
    keeper = Keeper()
    async with mail_server(keeper, starttls=False) as port:
        await send_two(f"smtp://127.0.0.1:{port}")
    assert [encrypted for _, encrypted, _ in keeper.kept] == [False, False]


async def test_starttls_is_used_if_the_server_offers_it() -> None:
    keeper = Keeper()
    async with mail_server(keeper) as port:
        await send_two(f"smtp://127.0.0.1:{port}")
    assert [encrypted for _, encrypted, _ in keeper.kept] == [True, True]


async def test_an_email_is_sent_with_starttls_and_login() -> None:
    keeper = Keeper()
    async with mail_server(keeper, require_starttls=True, auth_required=True) as port:
        await send_two(f"smtp://{LOGIN}127.0.0.1:{port}")
    assert [(encrypted, login) for _, encrypted, login in keeper.kept] == [(True, USER.encode())] * 2


async def test_an_email_is_sent_with_implicit_tls_and_login() -> None:
    keeper = Keeper()
    async with mail_server(keeper, over_tls=True, auth_required=True, auth_require_tls=False) as port:
        await send_two(f"smtps://{LOGIN}127.0.0.1:{port}")
    assert len(keeper.kept) == 2


async def test_on_loopback_a_password_may_be_sent_without_tls() -> None:
    keeper = Keeper()
    async with mail_server(keeper, starttls=False, auth_required=True, auth_require_tls=False) as port:
        await send_two(f"smtp://{LOGIN}127.0.0.1:{port}")
    assert len(keeper.kept) == 2


async def test_over_a_network_a_password_is_never_sent_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper()
    monkeypatch.setattr(SmtpServer, "on_loopback", False)
    async with mail_server(keeper, starttls=False, auth_required=True, auth_require_tls=False) as port:
        server = SmtpServer("127.0.0.1", port, False, USER, PASSWORD)
        with pytest.raises(Unavailable, match="STARTTLS"):
            await SmtpSession.open(server, tls_context(server), Limits(), nullcontext())
    assert keeper.kept == []


async def test_over_a_network_a_certificate_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmtpServer, "on_loopback", False)
    async with mail_server(Keeper()) as port:
        server = SmtpServer("127.0.0.1", port)
        with pytest.raises(Unavailable, match=r"(?i)certificate verify failed"):
            await SmtpSession.open(server, tls_context(server), Limits(), nullcontext())


async def test_a_wrong_password_raises_login_failed_and_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with mail_server(Keeper(), auth_required=True) as port:
        with pytest.raises(LoginFailed, match="Authentication credentials invalid") as caught:
            await send_two(f"smtp://jo:verysecret@127.0.0.1:{port}")
    assert "verysecret" not in str(caught.value) + repr(caught.value) + caplog.text


async def test_a_server_that_requires_a_login_we_do_not_have_raises_login_failed() -> None:
    async with mail_server(Keeper(), auth_required=True) as port:
        with pytest.raises(LoginFailed, match="530"):
            await send_two(f"smtp://127.0.0.1:{port}")


async def test_a_server_that_offers_no_login_raises_login_failed() -> None:
    async with mail_server(Keeper(), starttls=False, auth_exclude_mechanism=["LOGIN", "PLAIN"]) as port:
        with pytest.raises(LoginFailed, match=r"(?i)auth"):
            await send_two(f"smtp://{LOGIN}127.0.0.1:{port}")
