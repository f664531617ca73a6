"""The master's children, pipe and link of chapter 3, in this process."""

import asyncio
from types import SimpleNamespace

import pytest

from common.mail.emails import email_from_path
from common.processes.chapter import chapter_module
from tests.support.programs import until


async def test_a_child_is_not_restarted_before_its_pipe_has_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the old pipe closed after the restart, the master would take that for the death of the new child."""
    children = chapter_module("3_local_messages.children")
    died: list[str] = []
    child = children.Child("worker", None, None, None, lambda: died.append("died"))

    async def start() -> None:
        assert died == ["died"]

    monkeypatch.setattr(child, "start", start)
    child._process, child._pipe = SimpleNamespace(is_alive=lambda: False, exitcode=-9, pid=1), object()
    assert await child.check() is None
    assert child.restarts == 0
    child._closed()
    assert await child.check() is None
    assert child.restarts == 1


def test_an_invalid_message_in_the_pipe_is_logged_and_skipped() -> None:
    """The messages after it are still received."""
    pipe = chapter_module("3_local_messages.pipe")
    received: list[object] = []
    end = pipe.PipeEnd(received.append, lambda: None)
    end.data_received(b'["sent", "<a@b>"]\n\x80\x04\x95pickle\n{"not": "a list"}\nNaN\n' + b"[" * 5000 + b"\n")
    end.data_received(b'["sent", ')
    end.data_received(b'"<c@d>"]\n')
    assert received[0] == ["sent", "<a@b>"]
    assert received[-1] == ["sent", "<c@d>"]


async def test_an_answer_in_the_same_tick_as_its_timeout_is_ignored_without_an_error() -> None:
    link = chapter_module("3_local_messages.link").MasterLink(SimpleNamespace())
    question = link._pending[7] = asyncio.get_running_loop().create_future()
    question.cancel()  # as asyncio.timeout does
    link._answered(["answer", 7, 1, None])
    assert question.cancelled()


async def test_requests_behind_a_batch_that_hangs_time_out_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    module = chapter_module("3_local_messages.link")
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    link = module.MasterLink(SimpleNamespace())
    sent: list[object] = []
    link.pipe = SimpleNamespace(send=lambda *message: sent.append(message))  # to a master that hangs
    emails = [email_from_path(f"/{n}@example.com/Hello/x", "example.com") for n in range(3)]
    puts = [asyncio.create_task(link.put(emails[0]))]
    await until(lambda: sent)
    puts += [asyncio.create_task(link.put(email)) for email in emails[1:]]  # while the first batch is in flight
    results = await asyncio.gather(*puts, return_exceptions=True)
    kinds = [type(result).__name__ for result in results]
    assert kinds == ["NoAnswer", "CannotAccept", "CannotAccept"], "the others were never handed to the master"
    assert len(sent) == 1
