"""Fixtures: the embedded inbox in this process."""

from collections.abc import AsyncIterator
from random import Random

import pytest
from aiohttp import ClientSession

from common.http import serving
from common.services.inbox.faults import Dial
from common.services.inbox.smtp import Handler, SmtpServer
from common.services.inbox.store import Store
from common.services.inbox.web import create_app
from tests.support.inbox import Box, Conversation, conversation
from tests.support.programs import until


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    store, dial = Store(), Dial(Random(1))
    smtp = SmtpServer(Handler(store, dial))
    await smtp.listen("127.0.0.1", 0)
    app = create_app(store, dial)
    runner = await serving.start(app, "127.0.0.1", 0)
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        yield Box(store, dial, smtp, app, client)
    smtp.close()
    await until(lambda: not smtp._sessions)
    await runner.cleanup()


@pytest.fixture
async def smtp(box: Box) -> AsyncIterator[Conversation]:
    async with conversation(box.smtp.port) as talk:
        yield talk
