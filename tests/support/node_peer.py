"""JavaScript for tests: node itself, and the real node-resque in a process that takes commands over a pipe."""

import asyncio
import fcntl
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from typing import Any

from tests.support.programs import LIMIT, ROOT

FOLDER = ROOT / "tests" / "support" / "interop"
NODE = shutil.which("node")
INSTALL_SECONDS = 40  # well below the time limit of a test


class NodeError(Exception):
    """An error that node-resque has thrown."""


def rewrite(texts: Sequence[str]) -> list[str]:
    """JSON.stringify(JSON.parse(text)) for each of the texts."""
    assert NODE is not None
    lines = "".join(f"{text}\n" for text in texts)
    command = [NODE, str(FOLDER / "json.mjs")]
    output = subprocess.run(command, input=lines.encode(), capture_output=True, check=True).stdout
    return output.decode().split("\n")[:-1]


def why_not() -> str | None:
    """Install node-resque in its pinned version, if necessary. Returns why that is impossible, or None."""
    npm = shutil.which("npm")
    if NODE is None or npm is None:
        return "node or npm is not installed"
    with open(FOLDER / "package.json") as package:
        fcntl.flock(package, fcntl.LOCK_EX)  # test files that run at the same time
        return _install(npm, json.load(package)["dependencies"]["node-resque"])


def _install(npm: str, version: str) -> str | None:
    installed = FOLDER / "node_modules" / "node-resque" / "package.json"
    if installed.exists() and json.loads(installed.read_text())["version"] == version:
        return None
    try:
        result = subprocess.run([npm, "ci"], cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"npm ci did not end within {INSTALL_SECONDS} s"
    return None if result.returncode == 0 else f"npm ci: {result.stderr.strip()[:300]}"


class NodeResque:
    """`await peer(namespace, "queue", "enqueue", "q", "sendEmail", […])` calls that method of node-resque's Queue."""

    def __init__(self, port: int) -> None:
        assert NODE is not None
        self.process = subprocess.Popen(
            [NODE, str(FOLDER / "peer.mjs"), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            bufsize=1,
        )
        self._numbers = count()
        self._answers: dict[int, Future[Any]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            waiting = self._answers.pop(answer["number"])
            if "error" in answer:
                waiting.set_exception(NodeError(answer["error"]))
            else:
                waiting.set_result(answer["result"])

    async def __call__(self, namespace: str, kind: str, method: str, *args: Any, **options: Any) -> Any:
        """`options` are for the constructor, which runs at the first call with this `kind`."""
        assert self.process.stdin is not None
        number = next(self._numbers)
        answer = self._answers[number] = Future()
        command = {"number": number, "namespace": namespace, "kind": kind, "method": method}
        line = json.dumps(command | {"args": args, "options": options}) + "\n"
        self.process.stdin.write(line)
        async with asyncio.timeout(LIMIT):
            return await asyncio.wrap_future(answer)


@contextmanager
def running_node_resque(port: int) -> Iterator[NodeResque]:
    peer = NodeResque(port)
    try:
        yield peer
    finally:
        peer.process.kill()
        peer.process.communicate()
