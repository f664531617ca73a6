"""The page of the browser lab: its keyboard, its names for a screen reader, its motion, and the work that it saves."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lab.browser.sequences import SETTLED, do, lab_in_browser
from lab.chromium import Page, find_browser
from lab.harness.processes import Lab

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(find_browser() is None, reason="Chromium is not installed"),
    pytest.mark.asyncio(loop_scope="module"),  # as the browser's connection
]
CONTROLS = {"button", "link", "combobox", "slider", "radio", "checkbox", "DisclosureTriangle", "textbox"}
OPEN = "!!document.querySelector('dialog[open]')"
CLOSED = "!document.querySelector('dialog[open]')"
FOCUS_RING = (
    "(() => { const it = document.activeElement, shown = it.closest('.choice label') ?? it;"
    " return it === document.body ? 'body' : getComputedStyle(shown).outlineStyle + ' ' + it.outerHTML; })()"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab_page(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    """A lab with the lane 1, which starts soonest."""
    folder = tmp_path_factory.mktemp("lab-page")
    async with lab_in_browser(Lab(folder), Path(folder), "1") as (page, _, _):
        yield page


@pytest_asyncio.fixture(loop_scope="module")
async def page(lab_page: Page) -> AsyncIterator[Page]:
    """The page as a new reader gets it, with a lane that runs."""
    await lab_page.evaluate("localStorage.clear()")
    await lab_page.evaluate("window.before = true")
    await lab_page.open(await lab_page.evaluate("location.href"))
    await lab_page.wait_for(f"!window.before && window.lab?.frame?.lanes[0].processes.length === 1 && {SETTLED}")
    yield lab_page
    assert lab_page.errors == []


async def nodes(page: Page) -> list[dict[str, Any]]:
    """What a screen reader gets."""
    found = (await page.call("Accessibility.getFullAXTree"))["nodes"]
    return [node for node in found if not node["ignored"]]


async def check_names(page: Page, least: int) -> list[str]:
    """Every control has a name and a role. Returns their names."""
    names = []
    for node in await nodes(page):
        role, name = node["role"]["value"], node.get("name", {}).get("value", "").strip()
        focusable = any(one["name"] == "focusable" and one["value"]["value"] for one in node.get("properties", []))
        if role in CONTROLS:
            assert len(name) > 1, node
            names.append(name)
        else:
            assert not focusable or role in ("RootWebArea", "dialog", "option"), node
    assert len(names) >= least
    return names


async def test_every_control_has_a_name_and_a_role(page: Page) -> None:
    names = await check_names(page, 20)
    assert {"emails per second to each lane", "what the mail server does", "lane 1: caller: send one email"} <= {*names}
    spoken = await page.evaluate("document.getElementById('rate').getAttribute('aria-valuetext')")
    assert spoken == "0 per second"  # the slider's own value is only a place in the list of rates
    for opener, least in (("#help", 1), ("#lane-1 .server button", 5), ("#experiments button", 8)):
        await page.click(opener)
        await page.wait_for(OPEN)
        await check_names(page, least)
        [dialog] = [node for node in await nodes(page) if node["role"]["value"] == "dialog"]
        assert dialog["name"]["value"]
        await page.press("Escape")
        await page.wait_for(CLOSED)


async def test_the_focus_is_visible_everywhere(page: Page) -> None:
    seen = set()
    while True:
        await page.press("Tab")
        ring = await page.evaluate(FOCUS_RING)
        if ring == "body" or ring in seen:
            break
        assert not ring.startswith("none"), ring
        seen.add(ring)
    assert len(seen) >= 18
    await page.tab_to("#experiments button")
    await page.press("Enter")
    await page.wait_for(OPEN)
    for _ in range(4):
        assert not (await page.evaluate(FOCUS_RING)).startswith(("none", "body"))
        await page.press("Tab")


async def test_the_focus_is_not_lost_when_a_dialog_or_the_hint_closes(page: Page) -> None:
    await page.tab_to("#help")
    await page.press("Enter")
    await page.wait_for(OPEN)
    await page.press("Escape")
    await page.wait_for(f"{CLOSED} && document.activeElement.id === 'help'")
    await page.tab_to("#hint-close")
    await page.press("Enter")
    await page.wait_for("document.activeElement.matches('#experiments button')")
    await page.tab_to("#lane-1 .server button")
    await page.press("Enter")
    await page.wait_for(OPEN)
    old = await page.evaluate("document.querySelector('#lane-1 .server button').dataset.pid")
    await do(page, do="signal", lane="1", role="server", how="kill")
    await page.wait_for(f"![{old}, 0].includes(Number(document.querySelector('#lane-1 .server button').dataset.pid))")
    await page.press("Escape")
    await page.wait_for(f"{CLOSED} && document.activeElement.matches('#lane-1 .server button')")


async def most_moving(page: Page) -> int:
    """Send a burst. Returns the most dots that were on the way between two places in one picture."""
    await page.evaluate(
        "window.most = 0; (function look() {"
        " window.most = Math.max(window.most, window.lab.picture.moving); requestAnimationFrame(look); })()"
    )
    delivered = await page.evaluate("window.lab.frame.lanes[0].numbers.delivered")
    await page.click("#burst")
    await page.wait_for(f"window.lab.frame.lanes[0].numbers.delivered === {delivered + 20} && {SETTLED}")
    return int(await page.evaluate("window.most"))


async def test_reduced_motion_moves_no_dot(page: Page) -> None:
    assert await most_moving(page) > 0
    await page.prefer(reduced_motion="reduce")
    try:
        drawn = await page.evaluate("window.lab.picture.drawn")
        assert await most_moving(page) == 0
        assert await page.evaluate("window.lab.picture.drawn") > drawn
    finally:
        await page.prefer()


async def test_the_summary_changes_at_most_every_two_seconds(page: Page) -> None:
    """With the page's clock in our hands: a frame every half second, each with another number."""
    changes = await page.evaluate(
        "(() => { const { stream, show, frame } = window.lab, [lane] = frame.lanes, times = []; stream.pause(true);"
        " const place = document.getElementById('summary'), start = performance.now() + 10000;"
        " for (let i = 0, before = place.textContent; i < 20; i += 1) {"
        "   const numbers = {...lane.numbers, asked: i + 1, accepted: i + 1};"
        "   show({...frame, lanes: [{...lane, numbers}]}, start + 500 * i);"
        "   if (place.textContent !== before) times.push(500 * i);"
        "   before = place.textContent; }"
        " return times; })()"
    )
    assert changes == [0, 2500, 5000, 7500]


async def test_what_has_not_changed_costs_nothing(page: Page) -> None:
    """The same frame again changes no node, and a picture at rest is not drawn again."""
    await page.wait_for("window.lab.picture.moving === 0 && !window.lab.models.get('1').leaving")
    await page.evaluate("window.lab.stream.pause(true)")
    changed = await page.evaluate(
        "new Promise((resolve) => { const { show, frame } = window.lab, changes = [], now = performance.now() + 10000;"
        " show(frame, now);"
        " new MutationObserver((found) => changes.push(...found.map(({ target }) => target.outerHTML)))"
        "   .observe(document.body, { subtree: true, childList: true, characterData: true });"
        " for (let i = 1; i < 6; i += 1) show(frame, now + 1000 * i);"
        " setTimeout(() => resolve(changes)); })"
    )
    assert changed == []
    two_pictures = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    for _ in range(2):
        await page.evaluate(two_pictures)
    drawn = await page.evaluate("window.lab.picture.drawn")
    for _ in range(3):
        await page.evaluate(two_pictures)
    assert await page.evaluate("window.lab.picture.drawn") == drawn


async def test_many_emails_are_one_band_each(page: Page) -> None:
    """Of 3,000 emails the picture draws no dot; of 100 it draws every one."""
    drawn = (
        "(() => { const { stream, show, frame, picture } = window.lab, [lane] = frame.lanes; let dots = 0, texts = [];"
        " const context = document.querySelector('#lane-1 canvas').getContext('2d');"
        " stream.pause(true); picture.paused = true;"
        " context.drawImage = () => { dots += 1; }; context.fillText = (text) => texts.push(text);"
        " const emails = Array.from({length: COUNT}, (_, i) => [i, 'a']), numbers = {...lane.numbers, waiting: COUNT};"
        " show({...frame, whole: true, lanes: [{...lane, numbers, emails}]});"
        " picture.advance(16, performance.now()); return [dots, texts]; })()"
    )
    assert await page.evaluate(drawn.replace("COUNT", "3000")) == [0, ["3000"]]
    assert await page.evaluate(drawn.replace("COUNT", "100")) == [100, []]
