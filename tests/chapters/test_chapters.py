"""What the chapters print is what the code does: their links, their diffs, and their exercises, taken from the text."""

import logging
import re
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import resque
from asynckit.redis_client import redis_client
from common.mail.mailer import Mailer
from common.processes.chapter import chapter_module
from common.settings import Settings
from eventlog import events
from tests.conftest import STRATEGIES
from tests.support.programs import ROOT, a_name, until
from tests.support.servers import Valkey

READMES = [ROOT / "README.md", *(ROOT / name / "README.md" for name in STRATEGIES), ROOT / "results" / "README.md"]
OTHERS = [
    *(ROOT / name for name in ("GLOSSARY.md", "CONTRIBUTING.md", "resque/README.md", "eventlog/README.md")),
    ROOT / "lab" / "browser" / "README.md",
    *sorted((ROOT / "examples").rglob("README.md")),
]


def fences(name: str, language: str) -> list[str]:
    """What a chapter prints in this language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", (ROOT / name / "README.md").read_text())


def sides(diff: str) -> tuple[str, str]:
    """What it expects, and what it makes of that."""
    lines = diff.splitlines(keepends=True)
    return "".join(line[1:] for line in lines if line[0] in " -"), "".join(
        line[1:] for line in lines if line[0] in " +"
    )


def edited(name: str, file: str, *, marks: str, before: str = "", more: str = "") -> Any:
    """A module after an edit that its chapter asks for: the diff that has these marks in it, and more code."""
    [diff] = [diff for diff in fences(name, "diff") if marks in diff]
    old, new = sides(diff)
    source = (ROOT / name / file).read_text()
    assert source.count(old) == 1
    source = source.replace(old, new)
    if more:
        assert source.count(before) == 1
        source = source.replace(before, f"{more}\n\n{before}")
    module = types.ModuleType(f"{name}.{a_name()}")
    module.__package__, module.__file__ = name, str(ROOT / name / file)
    exec(compile(source, file, "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("readme", [*READMES, *OTHERS], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_link_leads_to_something(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", readme.read_text()):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            there = (readme.parent / path).resolve() if path else readme
            assert there.exists(), target
            headings = re.findall(r"(?m)^#+ (.*)$", there.read_text()) if anchor else []
            assert not anchor or anchor in [re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_diff_fits_one_place_in_the_code(name: str) -> None:
    folders = [name, *{"5_remote_queue": ["resque"], "6_event_bus": ["eventlog"]}.get(name, [])]
    sources = [path.read_text() for folder in folders for path in (ROOT / folder).glob("*.py")]
    for diff in fences(name, "diff"):
        assert sum(source.count(sides(diff)[0]) for source in sources) == 1, diff


@pytest.mark.parametrize("name", STRATEGIES)
def test_handle_is_printed_as_it_is(name: str) -> None:
    [handle] = [fence for fence in fences(name, "python") if "async def handle(request" in fence]
    assert handle in (ROOT / name / "server.py").read_text()


async def test_a_job_of_the_reader_s_own(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """Chapter 5: the function, the entry, and the line that enqueues it into the queue of our worker."""
    import asyncio

    caplog.set_level(logging.INFO)
    worker = chapter_module("5_remote_queue.worker")
    jobs = edited("5_remote_queue", "jobs.py", marks="resize")
    [line] = [fence for fence in fences("5_remote_queue", "python") if "resize" in fence]
    stop = asyncio.Event()

    async def stopped() -> str:
        await stop.wait()
        return "the picture is done"

    async with resque.open_connections(valkey.url) as connections:
        definitions = jobs.definitions(None, Settings())
        running = asyncio.create_task(resque.Worker(connections, [worker.QUEUE], definitions).run(stopped))
        request = SimpleNamespace(app={"jobs": jobs.Jobs(connections.commands)})
        names = {"request": request, "JOBS": "jobs", "QUEUE": jobs.QUEUE}
        exec(f"async def enqueue():\n    {line}", names)
        await names["enqueue"]()
        await until(lambda: "cat.jpg is smaller now" in caplog.messages)
        await until(lambda: valkey.client.hget("resque:py:totals", "succeeded") == "1")
        stop.set()
        await running


async def test_a_handler_of_the_reader_s_own(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """Chapter 6: it says so once for each domain, and twice rather than never when it is killed in between."""
    caplog.set_level(logging.INFO)
    [newcomers] = [fence for fence in fences("6_event_bus", "python") if "class Newcomers" in fence]
    handlers = edited("6_event_bus", "handlers.py", marks="Newcomers", before="def make_handlers", more=newcomers)
    settings = Settings()
    async with redis_client(valkey.url) as redis:
        *_, handler = handlers.make_handlers(settings, redis, Mailer(settings))
        assert (handler.name, handler.events, handler.window) == ("newcomers", {"email_requested"}, 1)
        for number, to in enumerate(("a@one.example", "b@one.example", "c@two.example")):
            await handler.handle(events.Event(f"<{number}@x>", "email_requested", {"to": to}))
        assert caplog.messages == ["the first email to one.example", "the first email to two.example"]
        assert valkey.client.hgetall("eventlog:newcomers") == {"one.example": "<0@x>", "two.example": "<2@x>"}
        valkey.client.hdel("eventlog:newcomers", "two.example")
        await handler.handle(events.Event("<2@x>", "email_requested", {"to": "c@two.example"}))
        assert caplog.messages[2:] == ["the first email to two.example"]
