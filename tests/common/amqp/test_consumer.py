"""Whatever the code of a handler does, it fails only its own attempt."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from common.amqp.consumer import Consumer, Handler
from common.amqp.queues import WorkQueue


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("raised", "shown"),
    [
        (SystemExit(2), "SystemExit: 2"),
        (asyncio.CancelledError(), "CancelledError"),
        (Unprintable(), "Unprintable: (the error cannot be shown: its __str__ fails)"),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
)
async def test_an_error_of_any_kind_moves_the_message_to_the_failed_list(raised: BaseException, shown: str) -> None:
    async def handle(body: bytes) -> None:
        raise raised

    queue = WorkQueue("amqp://127.0.0.1", "emailQueue", [1.0])
    consumer = Consumer(queue, Handler(handle, (), OSError, attempts=1, pause=lambda _: 1.0), 1, 1.0)
    message: Any = SimpleNamespace(body=b"{}", message_id="<1@example.com>")
    copy = await consumer._outcome(message, 1)
    assert copy is not None
    assert (copy.queue, copy.message.headers["error"]) == (queue.failed, shown)
