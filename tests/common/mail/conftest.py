"""Mail servers, and a mailer."""

from collections.abc import AsyncIterator, Iterator

import pytest

from common.mail.mailer import Mailer
from tests.support.postfix import Postfix, running_postfix
from tests.support.smtp_peer import SmtpPeer, smtp_peer


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with smtp_peer() as peer:
        yield peer


@pytest.fixture
async def mailer(peer: SmtpPeer) -> AsyncIterator[Mailer]:
    async with Mailer(peer.settings()) as mailer:
        yield mailer


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    with running_postfix() as postfix:
        yield postfix
