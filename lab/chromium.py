"""Headless Chromium, driven over its DevTools protocol: for screenshots and for tests of the pages.

See https://chromedevtools.github.io/devtools-protocol/ for the methods that `call` takes.
"""

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from asynckit.tasks import background, end_tasks

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",  # the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",  # /dev/shm is small in a container
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-port=0",
)
START_SECONDS = 60.0
WAIT_SECONDS = 60.0
MOST_TABS = 30
CODES = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32, "ArrowRight": 39, "ArrowDown": 40, "ArrowLeft": 37}


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class PageError(Exception):
    """The browser refused a call or did not answer it, or the page's script raised an error."""


class Page:
    """One tab. It accepts every question that the page asks (`confirm`)."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        """Exceptions that no script of the page has caught."""
        self.files_to_choose: list[Path] = []
        """What the page gets when it asks for files."""
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reactions: set[asyncio.Task[dict[str, Any]]] = set()

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """One call, and its result. Raises PageError."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send_json({"id": number, "method": method, "params": parameters})
            return await asyncio.wait_for(answer, WAIT_SECONDS)
        except (TimeoutError, ConnectionError):
            raise PageError(f"{method}: no answer within {WAIT_SECONDS:g} s") from None
        finally:
            del self._answers[number]

    async def read(self) -> None:
        """Read answers and events until the browser closes the connection."""
        async for message in self._socket:
            event = json.loads(message.data)
            if "method" in event:
                self._react(event["method"], event["params"])
            elif (answer := self._answers.get(event["id"])) and not answer.done():
                if "error" in event:
                    answer.set_exception(PageError(event["error"]["message"]))
                else:
                    answer.set_result(event["result"])

    def _react(self, method: str, event: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                self.errors.append(_describe(event["exceptionDetails"]))
            case "Page.javascriptDialogOpening":
                self._start(self.call("Page.handleJavaScriptDialog", accept=True))
            case "Page.fileChooserOpened":
                files = [str(path) for path in self.files_to_choose]
                self._start(self.call("DOM.setFileInputFiles", files=files, backendNodeId=event["backendNodeId"]))

    def _start(self, work: Coroutine[Any, Any, dict[str, Any]]) -> None:
        task = background(work, "reacting to an event of the browser")
        self._reactions.add(task)
        task.add_done_callback(self._reactions.discard)

    async def open(self, address: str, width: int = 1280, height: int = 720, *, phone: bool = False) -> None:
        """Open the address in a window of this size. It returns before the page has loaded."""
        await self.resize(width, height, phone=phone)
        await self.call("Page.navigate", url=address)

    async def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        await self.call("Emulation.setDeviceMetricsOverride", **size)

    async def prefer(self, **features: str) -> None:
        """For example color_scheme="dark", reduced_motion="reduce"."""
        wanted = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        await self.call("Emulation.setEmulatedMedia", features=wanted)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited. Raises PageError."""
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise PageError(_describe(found["exceptionDetails"]))
        return found["result"].get("value")

    async def wait_for(self, expression: str, seconds: float = WAIT_SECONDS) -> Any:
        """Wait until the expression is true (an element is not: use !!), and return its value. Raises PageError."""
        deadline = time.monotonic() + seconds
        why = "false"
        while time.monotonic() < deadline:
            try:
                if value := await self.evaluate(expression):
                    return value
            except PageError as error:  # the page has not loaded
                why = str(error)
            await asyncio.sleep(0.05)
        raise PageError(f"not within {seconds:g} s: {expression} ({why}; errors: {self.errors})")

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key, as the keyboard does."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = CODES.get(key, ord(key[0].upper()) if len(key) == 1 else 0)
        facts = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        await self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **facts)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    async def tab_to(self, selector: str) -> None:
        """Press the tab key until this element has the focus. Raises PageError."""
        for _ in range(MOST_TABS):
            await self.press("Tab")
            if await self.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                return
        raise PageError(f"the tab key does not reach {selector}")

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        """Click with the mouse on the middle of this element. Raises PageError if another element covers it."""
        target = json.dumps(selector)
        found = await self.evaluate(
            f"(() => {{ const it = document.querySelector({target}); it.scrollIntoView({{block: 'nearest'}});"
            " const b = it.getBoundingClientRect(), x = b.x + b.width / 2, y = b.y + b.height / 2;"
            " return {x, y, hit: it.contains(document.elementFromPoint(x, y))}; })()"
        )
        if not found["hit"]:
            raise PageError(f"{selector} is covered by another element")
        for kind in ("mousePressed", "mouseReleased"):
            place = {"x": found["x"], "y": found["y"], "button": "left", "clickCount": 1}
            await self.call("Input.dispatchMouseEvent", type=kind, **place)

    async def picture(self, path: Path) -> None:
        """Write what the window shows as a PNG."""
        found = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(found["data"]))


@asynccontextmanager
async def chromium(browser: str, folder: Path) -> AsyncIterator[Page]:
    """A browser with one tab. `folder` is for its profile. Raises PageError if it does not start."""
    process = await asyncio.create_subprocess_exec(
        browser,
        *OPTIONS,
        f"--user-data-dir={folder}",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        process_group=0,  # its helper processes are in the group too
    )
    try:
        async with aiohttp.ClientSession() as session:
            address = f"http://127.0.0.1:{await _port(folder / 'DevToolsActivePort')}/json/list"
            async with session.get(address) as answer:
                [tab, *_] = [target for target in await answer.json() if target["type"] == "page"]
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                reading = background(page.read(), "reading from the browser")
                for domain in ("Page", "Runtime", "DOM"):
                    await page.call(f"{domain}.enable")
                await page.call("Page.setInterceptFileChooserDialog", enabled=True)
                yield page
                await end_tasks([reading])
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _describe(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])


async def _port(path: Path) -> int:
    """The port that the browser has chosen, as soon as it has written it down."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if lines := await asyncio.to_thread(_lines, path):
            return int(lines[0])
        await asyncio.sleep(0.05)
    raise PageError("the browser did not start")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
