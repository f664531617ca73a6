"""The parts of the browser lab, without a browser: the account, the explanations, the frames."""

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import orjson
import psutil
import pytest
from aiohttp import web

from common.http.sources import find, page_of
from lab.browser.bookkeeping import Bookkeeping
from lab.browser.experiments import EXPERIMENTS
from lab.browser.explanations import TEXTS, explanation
from lab.browser.feed import Feed
from lab.browser.laboratory import Laboratory
from lab.browser.tracked_lab import TrackedLab
from lab.faults.promises import FAULTS, STEPS, SUBJECTS
from lab.harness.counters import Balance
from lab.harness.mailbox import Arrival, Attempt
from lab.harness.processes import Lab
from lab.harness.strategies import Strategy
from tests.support.programs import wait_until


def test_an_account_closes_at_every_moment() -> None:
    books = Bookkeeping("lane5a1")

    def closed() -> dict[str, int]:
        found = books.numbers(set())
        parts = ("delivered", "in_flight", "waiting", "failed", "unknown", "lost")
        assert found["accepted"] == sum(found[name] for name in parts)
        return found

    for number in range(4):
        books.ask(number, 1, 2)
        books.answer(number, 3, 202, f"<{number}>")
        closed()
    assert closed()["unknown"] == 4
    books.take_balance(Balance(4, 4, 0), complete=True)
    assert closed()["waiting"] == 4
    books.note(Attempt(4, "lane5a1-0@example.com", begins=True))
    assert (closed()["in_flight"], books.state(0, set())) == (1, "i")
    books.note(Attempt(5, "lane5a1-0@example.com", begins=False))  # the connection is lost before the answer
    books.note(Attempt(6, "lane5a1-0@example.com", begins=True))
    assert books.state(0, set()) == "g"
    for _ in range(2):
        books.note(Arrival(7, "lane5a1-0@example.com", "<0>"))
    assert (closed()["delivered"], closed()["twice"], books.state(0, set())) == (1, 1, "u")
    books.give_up("<1>")
    assert (closed()["failed"], books.state(1, set())) == (1, "f")
    books.settle()
    assert (closed()["lost"], books.state(2, set())) == (2, "l")
    books.note(Arrival(9, "lane5a1-2@example.com", "<2>"))  # it was not lost after all
    assert (closed()["lost"], books.state(2, set())) == (1, "d")
    books.note(Arrival(9, "lane5a0-7@example.com", "<7>"))
    assert closed()["late"] == 1


def test_every_explanation_leads_to_a_paragraph_of_its_chapter() -> None:
    faults = [fault for fault, _ in TEXTS] + [experiment.fault for experiment in EXPERIMENTS.values()]
    for fault in {*faults, *FAULTS}:
        for subject in SUBJECTS | STEPS:
            found = explanation(fault, subject)
            name, _, anchor = found.link.removeprefix("/source/").partition("#")
            path = find(name)
            assert path is not None
            assert f'id="{anchor}"' in page_of(path).html, found.link
            assert 2 <= found.text.count(". ") + 1 <= 3, found.text


def test_the_roles_are_found_without_a_look_at_all_processes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser lab asks for them 15 times a second."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("all processes of the machine were read")

    script = 'sleep 600 & echo "[web server @ $!] ready"; echo "[worker @ 1] ready"; wait'
    with lab.child(["sh", "-c", script], "strategy", False) as child:
        pid = int(child.wait_for(r"web server @ (\d+)"))
        child.wait_for(r"worker @ (\d+)")  # a process that is not below it
        monkeypatch.setattr(psutil.Process, "children", refuse)
        monkeypatch.setattr(psutil, "pids", refuse)
        strategy = Strategy(3, 0, lab.folder, child)
        assert strategy.roles() == {pid: "web server"}
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: strategy.roles() == {}, "it has ended")
        monkeypatch.undo()


async def test_a_viewer_gets_the_whole_picture_first_and_without_viewers_no_frame_is_made(tmp_path: Path) -> None:
    laboratory = Laboratory(TrackedLab(tmp_path), "2")
    books = laboratory.lanes["2"].books
    made: list[None] = []
    feed = Feed(laboratory, lambda: made.append(None))
    frames: asyncio.Queue[bytes] = asyncio.Queue()
    response = cast(web.StreamResponse, SimpleNamespace(write=frames.put))
    running = asyncio.create_task(feed.run())
    books.ask(0, 1, 2)
    await asyncio.to_thread(wait_until, lambda: not books.changed, "the time of a frame has come")
    assert made == []
    books.answer(0, 3, 202, "<0>")
    viewer = asyncio.create_task(feed.send(response))
    first = orjson.loads((await frames.get()).removeprefix(b"data: "))
    assert (first["whole"], first["lanes"][0]["emails"]) == (True, [[0, "a"]])
    second = orjson.loads((await frames.get()).removeprefix(b"data: "))
    assert (second.get("whole"), second["number"]) == (None, first["number"] + 1)
    for task in (viewer, running):
        task.cancel()
    await asyncio.gather(viewer, running, return_exceptions=True)
