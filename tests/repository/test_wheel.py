"""The libraries as a wheel in a virtual environment that has nothing else, away from this repository."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.programs import ROOT
from tests.support.servers import Valkey

JOB = '''
"""Enqueue a job, let a worker run it, append an event and read it."""

import asyncio
import sys

from redis.asyncio import Redis

from eventlog.events import Event
from eventlog.partitions import PartitionedLog
from resque import Definition, Queue, Worker, open_connections


async def main(url: str) -> None:
    done = asyncio.Event()

    async def greet(name: str) -> None:
        print("Hello,", name)
        done.set()

    async def stop() -> str:
        await done.wait()
        return "done"

    async with open_connections(url) as connections:
        assert await Queue(connections.commands).enqueue("greetings", "Greet", ["Alice"])
        await Worker(connections, ["greetings"], {"Greet": Definition(greet)}).run(stop)
    async with Redis.from_url(url) as redis, PartitionedLog(redis, 10.0) as log:
        await log.append(Event("<1@example.com>", "greeted", {"name": "Alice"}))
        [claimed] = await log.claim("reader", 1)
        print(claimed.event().name)


asyncio.run(main(sys.argv[1]))
'''


class Environment(NamedTuple):
    bin: Path
    elsewhere: Path

    def run(self, *command: str) -> str:
        return self._run([str(self.bin / command[0]), *command[1:]])

    def pip(self, *words: str) -> str:
        """The pip of this repository's environment works on the other one."""
        return self._run([sys.executable, "-m", "pip", "--python", str(self.bin / "python"), *words])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=self.elsewhere, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel, with the versions of requirements.lock, in a virtual environment of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    constraints = folder / "constraints.txt"
    pins = re.findall(r"(?m)^([\w.-]+(?:\[\w+\])?)==(\S+)", (ROOT / "requirements.lock").read_text())
    constraints.write_text("".join(f"{name.partition('[')[0]}=={version}\n" for name, version in pins))
    environment = Environment(folder / "venv" / "bin", folder)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    environment.pip("install", "-q", "-c", str(constraints), str(wheel))
    return environment


def test_a_job_and_an_event_with_nothing_but_the_wheel(installed: Environment, valkey: Valkey) -> None:
    (installed.elsewhere / "job.py").write_text(JOB)
    assert installed.run("python", "job.py", valkey.url) == "Hello, Alice\ngreeted\n"


def test_the_command_line_is_installed(installed: Environment, valkey: Valkey) -> None:
    printed = installed.run("resque", "--redis", valkey.url, "stats")
    assert re.search(r"(?m)^waiting +0$", printed)


def test_neither_web_libraries_nor_the_chapters_are_needed(installed: Environment) -> None:
    listed = installed.pip("list", "--format", "freeze").lower()
    assert not [name for name in ("aiohttp", "jinja2", "pydantic", "aiosmtplib") if f"{name}==" in listed]
    files = installed.pip("show", "-f", "six-ways-to-send-an-email")
    assert not re.search(r"(?m)^  (common|lab|tests|[1-9]_)", files)
    for name in ("asynckit", "resque", "eventlog"):
        assert f"  {name}/py.typed" in files
