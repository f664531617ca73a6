"""One limit of emails per second for all workers of a queue in RabbitMQ."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from asynckit.tasks import end_tasks
from common.amqp import limit
from common.amqp.limit import SharedLimit
from common.mail.errors import CannotAccept
from tests.support.programs import until


class Broker:
    """Answers how many consumers a queue has; with None it does not answer."""

    def __init__(self, consumers: int | None) -> None:
        self.consumers = consumers
        self.asked = 0

    async def count(self, queue: str) -> tuple[int, int]:
        self.asked += 1
        if self.consumers is None:
            raise CannotAccept("no answer")
        return 0, self.consumers


def shared(broker: Broker, per_second: float) -> SharedLimit:
    return SharedLimit(cast(Any, SimpleNamespace(link=broker, name="emails")), per_second)


async def test_a_worker_s_share_is_the_limit_divided_by_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "LOOK_SECONDS", 0.001)
    broker = Broker(1)
    one = shared(broker, 10.0)
    sharing = asyncio.create_task(one.keep_share())
    try:
        for workers in (1, 2, 5, 1):
            broker.consumers = workers
            expected = workers / 10
            await until(lambda expected=expected: one.pause == expected, f"a share of {workers}")  # type: ignore[misc]
        broker.consumers = None
        asked = broker.asked
        await until(lambda: broker.asked > asked + 3, "it asks again")
        assert one.pause == 0.1, "without an answer the share stays as it is"
    finally:
        await end_tasks([sharing])


async def test_no_email_is_sent_before_the_other_workers_have_had_the_time_to_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limit, "LOOK_SECONDS", 0.001)
    broker = Broker(0)  # this worker does not consume yet
    one = shared(broker, 1000.0)
    first = asyncio.create_task(one.acquire())
    sharing = asyncio.create_task(one.keep_share())
    try:
        await until(lambda: broker.asked > 3, "it asks")
        assert not first.done()
        broker.consumers, asked = 1, broker.asked
        await first
        assert broker.asked >= asked + 2, "after its own consumer was seen, it has asked again"
    finally:
        await end_tasks([sharing])


async def test_the_turns_come_in_order_and_a_smaller_share_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "LOOK_SECONDS", 0.001)
    one = shared(Broker(1), 1.0)
    one.pause = 3600.0
    await one.acquire()  # the first one is sent at once
    order: list[int] = []

    async def wait(number: int) -> None:
        await one.acquire()
        order.append(number)

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert order == []
    one.pause = 0.001
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2]
