"""Headless Chromium, driven over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

import asyncio
import base64
import itertools
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from asynckit.tasks import background, end_tasks
from tests.support.programs import until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REASON = "needs Chromium: apt-get install chromium"
START_SECONDS = 60.0
ANSWER_SECONDS = 30.0
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27}
TEXTS = {"Enter": "\r"}


class Page:
    """One tab. `errors` collects what the page's scripts threw and what its console logged as errors."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self.files_to_choose: list[Path] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reactions: set[asyncio.Task[Any]] = set()

    async def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._answers[number]

    async def listen(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            if "id" in event:
                answer = self._answers.pop(event["id"])
                if "error" in event:
                    answer.set_exception(AssertionError(event["error"]["message"]))
                else:
                    answer.set_result(event["result"])
            else:
                self._react(event["method"], event["params"])

    def _react(self, method: str, event: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                self.errors.append(event["exceptionDetails"].get("exception", {}).get("description", "?"))
            case "Page.javascriptDialogOpening":
                self._start(self.call("Page.handleJavaScriptDialog", accept=True))
            case "Page.fileChooserOpened":
                files = [str(path) for path in self.files_to_choose]
                self._start(self.call("DOM.setFileInputFiles", files=files, backendNodeId=event["backendNodeId"]))

    def _start(self, work: Any) -> None:
        task = background(work, "reacting to an event of the browser")
        self._reactions.add(task)
        task.add_done_callback(self._reactions.discard)

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.wait_for(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    async def evaluate(self, script: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, condition: str) -> Any:
        """Wait until the JavaScript expression is true, also across the loading of another page."""

        async def holds() -> Any:
            try:
                return await self.evaluate(f"(() => {{ try {{ return {condition} }} catch {{ return null }} }})()")
            except AssertionError:  # the page is being replaced
                return None

        return await until(holds, condition)

    async def press(self, key: str) -> None:
        code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "text": TEXTS.get(key, "")}
        await self.call("Input.dispatchKeyEvent", type="keyDown" if key in TEXTS else "rawKeyDown", **code)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    async def tab_to(self, selector: str, most: int = 30) -> None:
        """Press the tab key until this element has the focus."""
        for _ in range(most):
            await self.press("Tab")
            if await self.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                return
        raise AssertionError(f"the tab key does not reach {selector}")

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **size)

    async def screenshot(self, path: Path) -> None:
        data = base64.b64decode((await self.call("Page.captureScreenshot"))["data"])
        await asyncio.to_thread(path.write_bytes, data)


@asynccontextmanager
async def chromium_page(folder: Path) -> AsyncIterator[Page]:
    """Start Chromium with a profile in `folder`, and open a tab."""
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--remote-debugging-port=0", f"--user-data-dir={folder}"]
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *options, "about:blank", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        async with aiohttp.ClientSession() as session:
            async with asyncio.timeout(START_SECONDS):
                while not (found := re.search(rb"on ws://([\d.]+:\d+)/", await process.stderr.readline())):
                    pass
            draining = background(process.stderr.read(), "reading Chromium's log")
            async with session.put(f"http://{found[1].decode()}/json/new") as answer:
                address = (await answer.json())["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket)
                listening = background(page.listen(), "listening to the browser")
                for domain in ("Page", "Runtime", "DOM"):
                    await page.call(f"{domain}.enable")
                await page.call("Page.setInterceptFileChooserDialog", enabled=True)
                yield page
                await end_tasks([listening, draining])
    finally:
        process.kill()
        await process.wait()
