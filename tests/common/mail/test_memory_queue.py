"""The queue in memory: it is bounded, hands out the oldest email first, retries, and survives the loss of a worker."""

import logging
from typing import Any

import pytest

from common.mail import memory_queue as queue_module
from common.mail.errors import CannotAccept
from common.mail.memory_queue import OVERHEAD_BYTES, Entry, MemoryQueue
from tests.support.programs import until


class FakeWorker:
    """A worker that records the emails it is handed."""

    def __init__(self, attempts: int = 3, window: int = 2, **limits: Any) -> None:
        self.given: list[str] = []
        self.queue: MemoryQueue[str] = MemoryQueue(self.take, attempts, window, **limits)

    def take(self, entry: Entry[str]) -> None:
        self.given.append(entry.id)

    def put(self, *ids: str) -> None:
        for email_id in ids:
            self.queue.put(email_id, "payload", 100)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "backoff_seconds", lambda attempt: 0.001 * attempt)


async def test_nothing_is_handed_out_before_the_queue_is_opened() -> None:
    worker = FakeWorker()
    worker.put("a", "b")
    assert worker.given == []
    worker.queue.open()
    assert worker.given == ["a", "b"]


async def test_the_oldest_are_handed_out_first_and_never_more_than_the_window() -> None:
    worker = FakeWorker(window=2)
    worker.queue.open()
    worker.put("a", "b", "c", "d")
    assert worker.given == ["a", "b"]
    worker.queue.mark_sent("b")
    assert worker.given == ["a", "b", "c"]
    assert worker.queue.stats() | {"oldest_wait_seconds": 0} == {
        "accepted": 4, "sent": 1, "failed": 0, "retried": 0, "waiting": 1, "in_flight": 2,
        "next_attempt_seconds": None, "oldest_wait_seconds": 0,
    }  # fmt: skip


async def test_emails_in_flight_in_a_dead_worker_are_handed_out_again_first() -> None:
    worker = FakeWorker(window=2)
    worker.queue.open()
    worker.put("a", "b", "c")
    worker.queue.close()
    worker.put("d")
    assert worker.given == ["a", "b"]
    worker.queue.open()
    assert worker.given == ["a", "b", "a", "b"]
    worker.queue.mark_sent("a")
    worker.queue.mark_sent("b")
    assert worker.given[4:] == ["c", "d"]


async def test_a_result_for_an_email_that_is_not_in_flight_is_ignored() -> None:
    worker = FakeWorker()
    worker.queue.open()
    worker.put("a")
    worker.queue.mark_sent("a")
    worker.queue.mark_sent("a")
    worker.queue.mark_failed("unknown", "?", again=True)
    assert (worker.queue.sent, worker.queue.failed, worker.queue.retried) == (1, 0, 0)


async def test_an_email_is_tried_again_after_a_pause_until_its_attempts_are_used_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = FakeWorker(attempts=3)
    worker.queue.open()
    worker.put("a")
    for attempt in (1, 2, 3):
        await until(lambda attempt=attempt: len(worker.given) == attempt)  # type: ignore[misc]
        worker.queue.mark_failed("a", "451 not now", again=True)
        assert len(worker.given) == attempt, "not before the pause is over"
    assert worker.given == ["a"] * 3
    assert (worker.queue.retried, worker.queue.failed, len(worker.queue)) == (2, 1, 0)
    assert "gave up a after 3 attempt(s): 451 not now" in caplog.text


async def test_an_email_that_waits_for_a_retry_does_not_block_the_others() -> None:
    worker = FakeWorker(window=1)
    worker.queue.open()
    worker.put("a", "b", "c")
    worker.queue.mark_failed("a", "451", again=True)
    assert worker.given == ["a", "b"]
    worker.queue.mark_sent("b")
    await until(lambda: worker.given == ["a", "b", "c"])
    worker.queue.mark_sent("c")
    await until(lambda: worker.given == ["a", "b", "c", "a"])


async def test_a_permanent_failure_is_given_up_at_once() -> None:
    worker = FakeWorker()
    worker.queue.open()
    worker.put("a")
    worker.queue.mark_failed("a", "550 no", again=False)
    assert (worker.queue.failed, len(worker.queue), worker.queue.bytes) == (1, 0, 0)


async def test_at_its_limit_the_queue_refuses_emails() -> None:
    worker = FakeWorker(limit=2 * (100 + OVERHEAD_BYTES))
    worker.put("a", "b")
    with pytest.raises(CannotAccept):
        worker.put("c")
    with pytest.raises(CannotAccept):
        worker.queue.check_room()
    worker.queue.open()
    worker.queue.mark_sent("a")
    worker.put("c")
    assert worker.queue.accepted == 3


async def test_an_id_that_is_in_the_queue_is_not_added_again() -> None:
    worker = FakeWorker()
    worker.put("a", "a")
    assert (worker.queue.accepted, len(worker.queue)) == (1, 1)


async def test_draining_ends_with_the_last_email_or_at_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    worker = FakeWorker()
    await worker.queue.drain(0.01)
    worker.put("a", "b")
    await worker.queue.drain(0.01)
    worker.queue.log_lost("not sent in time")
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        "lost a: not sent in time",
        "lost b: not sent in time",
    ]
    worker.queue.open()
    worker.queue.mark_sent("a")
    worker.queue.mark_sent("b")
    await worker.queue.drain(60)


async def test_in_an_outage_the_log_has_one_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    worker = FakeWorker(window=1000)
    worker.queue.open()
    worker.put(*map(str, range(500)))
    for number in range(500):
        worker.queue.mark_failed(str(number), "451 not now", again=True)
    assert len(caplog.records) <= 2
