"""The browser lab, in a real browser: what the page shows is what the strategies and the inbox say.

One lab with the lanes 2, 4 and 5 serves all tests of this file. They run in the order in which they are written.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import pytest_asyncio

from lab.browser.sequences import CLOSES, SETTLED, SHOWN, count_received, lab_in_browser, run_sequence
from lab.chromium import Page, find_browser
from lab.harness.machine import descendants
from lab.harness.processes import Child, Lab, python, still_alive
from tests.support.programs import ask, wait_until

pytestmark = pytest.mark.timeout(400)
without_chromium = pytest.mark.skipif(find_browser() is None, reason="Chromium is not installed")
same_loop = pytest.mark.asyncio(loop_scope="module")  # as the browser's connection


class Opened(NamedTuple):
    page: Page
    inbox: str
    child: Child

    @property
    def url(self) -> str:
        return self.child.wait_for(r"the lab is at (\S+)/")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Opened]:
    """A lab that leaves no process behind."""
    folder = tmp_path_factory.mktemp("browser-lab")
    async with lab_in_browser(Lab(folder), folder, "2 4 5") as (page, inbox, child):
        yield Opened(page, inbox, child)
        family = descendants(child.process.pid)
        child.process.terminate()
        await asyncio.to_thread(child.process.wait, 60)
        assert not still_alive(family, 5.0)
        assert "Traceback" not in child.text()


@pytest_asyncio.fixture(loop_scope="module")
async def page(opened: Opened) -> AsyncIterator[Page]:
    """The page with new accounts, no load and no faults."""
    page = opened.page
    await page.wait_for(SETTLED)
    await page.evaluate("document.getElementById('dialog').close()")
    epochs = "window.lab.frame.lanes.map(lane => lane.epoch)"
    before = json.dumps(await page.evaluate(epochs))
    await page.click("#heal")
    await page.wait_for(f"{epochs}.every((epoch, number) => epoch > {before}[number])")
    await page.wait_for(f"{SETTLED} && window.lab.frame.lanes.every(lane => lane.numbers.asked === 0)")
    yield page
    assert page.errors == []


async def lane(page: Page, name: str) -> dict[str, Any]:
    return dict(await page.evaluate(f"window.lab.frame.lanes.find(lane => lane.lane === '{name}')"))


async def numbers(page: Page, name: str) -> dict[str, int]:
    return dict((await lane(page, name))["numbers"])


async def settled(page: Page) -> None:
    """Wait until every account has closed. The page then shows what the lab knows."""
    await page.wait_for(SETTLED, 90.0)
    shown = await page.evaluate(SHOWN)
    for facts in await page.evaluate("window.lab.frame.lanes"):
        assert facts["gaps"] == []
        assert await page.evaluate(f"{CLOSES}({json.dumps(facts['numbers'])})")
        assert {name: facts["numbers"][name] for name in shown[facts["lane"]]} == shown[facts["lane"]]


async def predict(page: Page, **choices: int) -> None:
    """Fill in the form that is open, such as lost_2=2, and send it."""
    await page.wait_for("!!document.querySelector('dialog[open] button[value=go]')")
    for name, amount in choices.items():
        effect, lane = name.split("_")
        await page.click(f"dialog label:has(input[name='{lane}-{effect}'][value='{amount}'])")
    await page.click("dialog button[value=go]")


@same_loop
@without_chromium
async def test_a_burst_goes_to_all_lanes_at_the_same_moment(opened: Opened, page: Page) -> None:
    before = count_received(opened.inbox)
    await page.click("#burst")
    await page.wait_for("window.lab.frame.lanes.every(lane => lane.numbers.asked === 20)")
    await settled(page)
    found = {name: await numbers(page, name) for name in "245"}
    assert count_received(opened.inbox) - before == sum(each["delivered"] + each["twice"] for each in found.values())
    assert found["5"]["delivered"] == found["5"]["accepted"] == 20  # the others may lose some on a busy machine
    race = (await lane(page, "5"))["race"]
    assert race["answered"] == race["arrived"] == 20
    stats = ask(f"http://127.0.0.1:{(await lane(page, '5'))['port']}", "/stats").json
    assert (stats["accepted"], stats["sent"], stats["waiting"], stats["in_flight"]) == (20, 20, 0, 0)


@same_loop
@without_chromium
async def test_the_killed_worker_loses_emails_in_2_and_4_and_none_in_5(opened: Opened, page: Page) -> None:
    before = count_received(opened.inbox)
    await page.click("#experiments button[data-name=worker]")
    await predict(page, lost_2=2, twice_2=0, lost_4=0)  # right in lane 2, wrong in lane 4
    await page.wait_for("!!document.querySelector('dialog[open] .right')", 120.0)
    found = {name: await numbers(page, name) for name in "245"}
    assert found["2"]["lost"] > 0
    assert found["4"]["lost"] > 0
    assert (found["5"]["lost"], found["5"]["delivered"]) == (0, found["5"]["accepted"])
    arrived = sum(each["delivered"] + each["twice"] + each["recovered"] + each["late"] for each in found.values())
    assert count_received(opened.inbox) - before == arrived
    verdicts = "[...document.querySelectorAll('dialog tr[data-lane=\"{}\"] .verdict')].map(it => it.className)"
    assert await page.evaluate(verdicts.format(4)) == ["verdict bad"]
    assert ("good" in (await page.evaluate(verdicts.format(2)))[0]) == (found["2"]["lost"] >= 20)
    assert await page.evaluate(verdicts.format(5)) == []
    text = await page.evaluate("document.getElementById('dialog').innerText")
    assert f"{found['4']['lost']} of {found['4']['accepted']}" in text
    assert "Next: The mail server hangs" in text
    score = json.loads(await page.evaluate("localStorage.getItem('lab.score')"))
    assert score["asked"] == 3  # the three that were predicted
    assert f"{score['right']} of 3 predictions were right" in text
    await page.press("Escape")
    await settled(page)


@same_loop
@without_chromium
async def test_everything_can_be_done_by_keyboard(page: Page) -> None:
    await page.evaluate("document.activeElement.blur()")
    await page.press("p")
    frozen = await page.evaluate("window.lab.frame.number")
    await page.press("b")
    await page.wait_for("window.lab.stream.waiting > 3")
    assert await page.evaluate("window.lab.frame.number") == frozen  # the picture stands still, the processes do not
    await page.press(".")
    assert await page.evaluate("window.lab.frame.number") == frozen + 1
    await page.press("p")
    await page.wait_for("window.lab.frame.lanes.every(lane => lane.numbers.asked === 20)")
    for _ in range(60):  # Tab reaches the worker of lane 4
        await page.press("Tab")
        if (
            await page.evaluate("document.activeElement.closest('#lane-4') && document.activeElement.dataset.role")
            == "worker"
        ):
            break
    pid = await page.evaluate("Number(document.activeElement.dataset.pid)")
    await page.press("b")
    await page.press("Enter")
    await page.wait_for("!!document.querySelector('dialog[open] button[value=kill]')")
    await page.press("Enter")  # the first button is kill -9
    await page.wait_for("!!document.querySelector('dialog[open] button[value=go]')")
    await page.press("ArrowRight")  # lost: some
    for _ in range(2):
        await page.press("Tab")
    await page.press("Enter")  # Do it
    await page.wait_for("!!document.querySelector('dialog[open] .right')", 120.0)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    await page.press("Escape")
    await settled(page)


@same_loop
@without_chromium
async def test_the_step_pop_loses_what_its_worker_held(page: Page) -> None:
    await page.evaluate("document.querySelector('#lane-5 .subject').focus()")
    for _ in range(4):
        await page.press("ArrowDown")
        if await page.evaluate("document.activeElement.value") == "5-pop":
            break
    await page.wait_for("window.lab.frame.lanes.find(lane => lane.lane === '5').subject === '5-pop'", 90.0)
    await page.wait_for(SETTLED, 90.0)
    await page.click("#experiments button[data-name=worker]")
    await predict(page, lost_5=1)
    await page.wait_for("!!document.querySelector('dialog[open] .right')", 120.0)
    found = await numbers(page, "5")
    assert found["lost"] > 0
    assert found["accepted"] == found["delivered"] + found["lost"]
    link = await page.evaluate("document.querySelector('dialog tr[data-lane=\"5\"] a').href")
    assert link.endswith("/source/5_remote_queue/README.md#step-1-pop")
    assert 'id="step-1-pop"' in ask(link.partition("/source")[0], "/source/5_remote_queue/README.md").text
    await page.press("Escape")
    await settled(page)


@same_loop
@without_chromium
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_number_closes_after_random_faults(opened: Opened, page: Page, seed: int) -> None:
    found = await run_sequence(page, seed, 6, opened.inbox)
    assert found.problems == [], found.actions


@same_loop
@without_chromium
async def test_only_the_page_can_change_anything(opened: Opened, page: Page) -> None:
    body = {"do": "burst", "lanes": ["2"], "count": 1}
    token = await page.evaluate("document.querySelector('meta[name=token]').content")
    assert ask(opened.url, "/do", "POST", body=body).status == 403
    assert ask(opened.url, "/do", "POST", {"X-Token": "0" * 64}, body).status == 403
    for header, value in {"Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site", "Host": "evil.test"}.items():
        assert ask(opened.url, "/do", "POST", {"X-Token": token, header: value}, body).status == 403
    assert ask(opened.url, "/do", "GET", {"X-Token": token}).status == 405
    for wrong in (
        {"do": "burst", "lanes": ["9"], "count": 1},
        {"do": "signal", "lane": "2", "role": "init", "how": "kill"},
    ):
        assert ask(opened.url, "/do", "POST", {"X-Token": token}, wrong).status == 400
    there_is_none = {"do": "signal", "lane": "2", "role": "worker", "how": "kill"}
    assert ask(opened.url, "/do", "POST", {"X-Token": token}, there_is_none).status == 409
    assert "default-src 'self'" in ask(opened.url).headers["Content-Security-Policy"]
    connections = psutil.Process(opened.child.process.pid).net_connections()
    assert {each.laddr.ip for each in connections if each.status == "LISTEN"} == {"127.0.0.1"}
    assert (await numbers(page, "2"))["asked"] == 0


# Beside another lab


@same_loop
@without_chromium
async def test_two_labs_do_not_meet_and_a_killed_one_leaves_no_process(
    opened: Opened, page: Page, tmp_path: Path
) -> None:
    port = int(opened.url.rpartition(":")[2])
    settings = {"LAB_PORT": port, "STRATEGIES": "3 5"}
    with Lab(tmp_path).child(python("lab.browser"), "second", False, 60.0, **settings) as second:
        url = await asyncio.to_thread(second.wait_for, r"the lab is at (\S+)/")
        assert url != opened.url
        await asyncio.to_thread(
            wait_until, lambda: set(ask(url, "/health").json["lanes"].values()) == {"runs"}, "it runs", 150.0
        )
        family = descendants(second.process.pid)
        token = re.findall(r'name="token" content="(\w+)"', ask(url).text)[0]
        for lane, role in (("3", "master"), ("3", "worker"), ("5", "server"), ("5", "worker"), ("5", "redis")):
            body = {"do": "signal", "lane": lane, "role": role, "how": "freeze"}
            asked = partial(ask, url, "/do", "POST", {"X-Token": token}, body)
            await asyncio.to_thread(wait_until, lambda: asked().status < 300, f"{role} of {lane} runs")  # noqa: B023
        assert sum(each.status() == psutil.STATUS_STOPPED for each in family) == 5
        second.process.kill()
        second.process.wait()
        assert not await asyncio.to_thread(still_alive, family, 60.0)
    assert {each["status"] for each in await page.evaluate("window.lab.frame.lanes")} == {"runs"}
