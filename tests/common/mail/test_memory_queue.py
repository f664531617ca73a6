"""The queue in memory: bounded, oldest first, with attempts, and with nothing lost when a worker is."""

import logging
from typing import Any

import pytest

from common.mail import memory_queue as outbox_module
from common.mail.errors import CannotAccept
from common.mail.memory_queue import OVERHEAD_BYTES, Entry, MemoryQueue
from tests.support.programs import until


class Hands:
    """Takes what is handed out."""

    def __init__(self, attempts: int = 3, window: int = 2, **limits: Any) -> None:
        self.given: list[str] = []
        self.outbox: MemoryQueue[str] = MemoryQueue(self.take, attempts, window, **limits)

    def take(self, entry: Entry[str]) -> None:
        self.given.append(entry.id)

    def put(self, *ids: str) -> None:
        for email_id in ids:
            self.outbox.put(email_id, "payload", 100)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "backoff_seconds", lambda attempt: 0.001 * attempt)


async def test_nothing_is_handed_out_before_somebody_is_there() -> None:
    hands = Hands()
    hands.put("a", "b")
    assert hands.given == []
    hands.outbox.open()
    assert hands.given == ["a", "b"]


async def test_the_oldest_first_and_never_more_than_the_window() -> None:
    hands = Hands(window=2)
    hands.outbox.open()
    hands.put("a", "b", "c", "d")
    assert hands.given == ["a", "b"]
    hands.outbox.mark_sent("b")
    assert hands.given == ["a", "b", "c"]
    assert hands.outbox.stats() | {"oldest_wait_seconds": 0} == {
        "accepted": 4, "sent": 1, "failed": 0, "retried": 0, "waiting": 1, "in_flight": 2,
        "next_attempt_seconds": None, "oldest_wait_seconds": 0,
    }  # fmt: skip


async def test_what_was_in_flight_with_a_dead_worker_is_handed_out_again_in_front() -> None:
    hands = Hands(window=2)
    hands.outbox.open()
    hands.put("a", "b", "c")
    hands.outbox.close()
    hands.put("d")
    assert hands.given == ["a", "b"]
    hands.outbox.open()
    assert hands.given == ["a", "b", "a", "b"]
    hands.outbox.mark_sent("a")
    hands.outbox.mark_sent("b")
    assert hands.given[4:] == ["c", "d"]


async def test_a_word_about_an_email_that_is_not_in_flight_changes_nothing() -> None:
    hands = Hands()
    hands.outbox.open()
    hands.put("a")
    hands.outbox.mark_sent("a")
    hands.outbox.mark_sent("a")
    hands.outbox.mark_failed("unknown", "?", again=True)
    assert (hands.outbox.sent, hands.outbox.failed, hands.outbox.retried) == (1, 0, 0)


async def test_an_email_is_tried_again_after_a_pause_until_its_attempts_are_used_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hands = Hands(attempts=3)
    hands.outbox.open()
    hands.put("a")
    for attempt in (1, 2, 3):
        await until(lambda attempt=attempt: len(hands.given) == attempt)  # type: ignore[misc]
        hands.outbox.mark_failed("a", "451 not now", again=True)
        assert len(hands.given) == attempt, "not before the pause is over"
    assert hands.given == ["a"] * 3
    assert (hands.outbox.retried, hands.outbox.failed, len(hands.outbox)) == (2, 1, 0)
    assert "gave up a after 3 attempt(s): 451 not now" in caplog.text


async def test_while_one_waits_for_its_next_attempt_the_others_go_on() -> None:
    hands = Hands(window=1)
    hands.outbox.open()
    hands.put("a", "b", "c")
    hands.outbox.mark_failed("a", "451", again=True)
    assert hands.given == ["a", "b"]
    hands.outbox.mark_sent("b")
    await until(lambda: hands.given == ["a", "b", "c"])
    hands.outbox.mark_sent("c")
    await until(lambda: hands.given == ["a", "b", "c", "a"])


async def test_a_permanent_failure_is_given_up_at_once() -> None:
    hands = Hands()
    hands.outbox.open()
    hands.put("a")
    hands.outbox.mark_failed("a", "550 no", again=False)
    assert (hands.outbox.failed, len(hands.outbox), hands.outbox.bytes) == (1, 0, 0)


async def test_it_has_an_end() -> None:
    hands = Hands(limit=2 * (100 + OVERHEAD_BYTES))
    hands.put("a", "b")
    with pytest.raises(CannotAccept):
        hands.put("c")
    with pytest.raises(CannotAccept):
        hands.outbox.check_room()
    hands.outbox.open()
    hands.outbox.mark_sent("a")
    hands.put("c")
    assert hands.outbox.accepted == 3


async def test_an_id_that_it_holds_already_is_not_taken_twice() -> None:
    hands = Hands()
    hands.put("a", "a")
    assert (hands.outbox.accepted, len(hands.outbox)) == (1, 1)


async def test_draining_ends_with_the_last_email_or_with_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    hands = Hands()
    await hands.outbox.drain(0.01)
    hands.put("a", "b")
    await hands.outbox.drain(0.01)
    hands.outbox.list_lost("not sent in time")
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        "lost a: not sent in time",
        "lost b: not sent in time",
    ]
    hands.outbox.open()
    hands.outbox.mark_sent("a")
    hands.outbox.mark_sent("b")
    await hands.outbox.drain(60)


async def test_in_an_outage_the_log_stays_readable(caplog: pytest.LogCaptureFixture) -> None:
    hands = Hands(window=1000)
    hands.outbox.open()
    hands.put(*map(str, range(500)))
    for number in range(500):
        hands.outbox.mark_failed(str(number), "451 not now", again=True)
    assert len(caplog.records) <= 2
