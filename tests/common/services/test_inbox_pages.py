"""The embedded inbox: its pages and events, and its process."""

import asyncio
import json
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from asynckit.web import event_stream
from common.services.inbox import web as web_module
from common.services.service import running
from tests.support.inbox import Box, conversation, mail
from tests.support.programs import LIMIT, Program, open_users_lock, wait_until

# HTTP


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/health", {}, 200),
        ("GET", "/", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link on a strategy's page
        ("GET", "/api/messages", {"Host": "localhost:8025"}, 200),
        ("GET", "/api/messages", {"Host": "evil.test"}, 403),
        ("GET", "/api/messages", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "/api/events", {"Origin": "http://evil.test"}, 403),
        ("DELETE", "/api/messages", {"Origin": "http://evil.test"}, 403),
        ("DELETE", "/api/messages", {"Origin": "http://127.0.0.1:8080"}, 403),
        ("DELETE", "/api/messages", {"Sec-Fetch-Site": "same-site"}, 403),
        ("DELETE", "/api/messages", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("PUT", "/api/faults", {"Sec-Fetch-Site": "same-site"}, 403),
        ("PUT", "/api/faults", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("PUT", "/api/faults", {"Origin": "null"}, 403),
        ("POST", "/api/messages", {}, 405),
        ("DELETE", "/api/stats", {}, 405),
        ("GET", "/nowhere", {}, 404),
        ("GET", "/assets/../inbox.html", {}, 404),
    ],
)
async def test_which_requests_are_answered(
    box: Box, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    box.store.add("a@test", ["b@test"], mail())
    response = await box.http.request(method, path, headers=headers)
    assert response.status == status
    if status >= 400:
        assert (await response.json())["error"]["reason"]
        assert box.store.stats()["received"] == 1


async def test_events_have_the_latest_stats_and_not_each_change(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "EVENT_SECONDS", 0.1)
    response = await box.http.get("/api/events")
    assert response.content_type == "text/event-stream"
    assert await event(response.content) == {"received": 0, "unique": 0, "duplicates": 0}

    told: list[dict[str, int]] = []
    for i in range(1000):
        box.store.add("a@test", ["b@test"], mail(f"<{i}@test>"))
        await asyncio.sleep(0)
    while not told or told[-1]["received"] < 1000:
        told.append(await event(response.content))
    assert len(told) < 500

    box.store.empty()
    assert (await event(response.content))["received"] == 0
    response.close()


async def test_an_idle_event_stream_sends_keep_alives(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "SILENCE_SECONDS", 0.0)
    response = await box.http.get("/api/events")
    await event(response.content)
    async with asyncio.timeout(LIMIT):
        while await response.content.readline() != b":\n":
            pass
    response.close()


async def test_a_reader_that_disconnects_is_noticed_without_an_error(
    box: Box, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(web_module, "EVENT_SECONDS", 0.01)
    monkeypatch.setattr(event_stream, "SILENCE_SECONDS", 0.01)
    response = await box.http.get("/api/events")
    await event(response.content)
    readers = box.app[event_stream.READERS]
    assert len(readers) == 1
    response.close()
    async with asyncio.timeout(LIMIT):
        await asyncio.wait(set(readers))
    assert caplog.text == ""


async def event(stream: Any) -> Any:
    """The data of the next event."""
    async with asyncio.timeout(LIMIT):
        while not (line := await stream.readline()).startswith(b"data: "):
            assert line, "the stream ended"
    return json.loads(line[6:])


# The process


async def test_the_process_announces_itself_serves_and_stops_despite_open_connections(tmp_path: Path) -> None:
    with open_users_lock(tmp_path, "inbox"):
        program = Program([sys.executable, "-m", "common.services.inbox"], environment(tmp_path))
        try:
            facts = wait_until(lambda: running(tmp_path, "inbox"), f"the inbox runs: {program.output}")
            assert facts is not None
            assert facts["pid"] == program.process.pid
            url = f"http://127.0.0.1:{facts['inbox_port']}"
            async with conversation(facts["inbox_smtp_port"]) as talk, ClientSession() as http:
                assert (await talk.send(mail()))[:3] == "250"
                async with http.put(f"{url}/api/faults", json={"hang_rate": 1}) as response:
                    assert response.status == 200
                async with http.get(f"{url}/api/events") as events:
                    assert (await event(events.content))["received"] == 1
                    await talk.begin(mail())
                    assert program.stop(limit=LIMIT) == 0
                    assert await talk.reply() == ""
        finally:
            program.process.kill()
    assert [line.split(maxsplit=1)[1].split("(")[0] for line in program.lines[1:]] == ["stopping "]


@pytest.mark.parametrize("setting", ["INBOX_SMTP_PORT", "INBOX_PORT"])
def test_a_port_in_use_means_one_line_and_exit_2(tmp_path: Path, setting: str) -> None:
    with socket.socket() as taken, open_users_lock(tmp_path, "inbox"):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        program = Program([sys.executable, "-m", "common.services.inbox"], environment(tmp_path) | {setting: port})
        try:
            wait_until(lambda: program.process.poll() is not None, "it ends")
        finally:
            program.stop(signal.SIGKILL)
    assert program.process.returncode == 2
    assert program.lines == [f"{setting}: port {port} on 127.0.0.1 is in use; choose another, or 0 for any free one"]


def environment(data_dir: Path) -> dict[str, str]:
    return {"INBOX_SMTP_PORT": "0", "INBOX_PORT": "0", "DATA_DIR": str(data_dir)}
