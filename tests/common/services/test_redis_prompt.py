"""The prompt at Redis: the page that teaches it, executed, and input that is not a good command."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from asynckit.redis_client import blocking_redis_client, redis_client
from common.services.redis_prompt import answer, quoted
from common.services.service import Service
from common.settings import Settings
from resque import Queue
from tests.support.programs import LIMIT, ROOT, closed_port
from tests.support.servers import Valkey


@pytest.fixture
def client(valkey: Valkey) -> Iterator[redis.Redis]:
    valkey.client.flushall()
    with blocking_redis_client(valkey.url) as client:
        yield client


async def test_the_page_shows_what_the_prompt_prints(client: redis.Redis, valkey: Valkey) -> None:
    email = {"to": "alice@example.com", "subject": "Hello", "text": "Hi"}
    async with redis_client(valkey.url) as connection:
        await Queue(connection).enqueue("emailQueue", "sendEmail", [email])
    blocks = re.findall(r"(?ms)^```\n(redis> .*?)^```$", (ROOT / "examples" / "redis" / "README.md").read_text())
    assert len(blocks) == 4
    for block in blocks:
        for exchange in re.split(r"^redis> ", block, flags=re.MULTILINE)[1:]:
            line, _, expected = exchange.partition("\n")
            printed = re.sub(r'(\\"id\\":\\")[^"\\]+', r"\1…", answer(client, line))
            assert printed == expected.rstrip("\n"), line


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("", ""),
        ("   ", ""),
        ('"unclosed', "(error) No closing quotation"),
        ("SUBSCRIBE x", "(error) this prompt cannot wait for messages; use redis-cli for SUBSCRIBE"),
        ("GET", "(error) wrong number of arguments for 'get' command"),
        ("help no-such-command", "there is no command no-such-command"),
        ("LRANGE none 0 -1", "(empty array)"),
        ('EVAL "return {1,{2,3},false}" 0', "1) (integer) 1\n2) 1) (integer) 2\n   2) (integer) 3\n3) (nil)"),
    ],
)
def test_every_line_gets_an_answer(client: redis.Redis, line: str, printed: str) -> None:
    assert answer(client, line) == printed


def test_help_explains_a_command(client: redis.Redis) -> None:
    assert answer(client, "help lrange").startswith("LRANGE\n  what it does: Returns a range of elements from a list")
    assert "help LRANGE" in answer(client, "help")


@pytest.mark.parametrize(
    ("value", "text"), [(b'a"b', r'"a\"b"'), (b"\x1b[2J\n", r'"\x1b[2J\n"'), (b"\xff", r'"\\xff"')]
)
def test_what_a_terminal_could_act_on_is_escaped(value: bytes, text: str) -> None:
    assert quoted(value) == text


def run(data_dir: Path, stdin: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "common.services.redis_prompt"]
    settings = os.environ | {"DATA_DIR": str(data_dir)} | environment
    return subprocess.run(
        command, cwd=ROOT, env=settings, input=stdin, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def test_it_reads_lines_from_a_pipe(valkey: Valkey, tmp_path: Path) -> None:
    done = run(tmp_path, "SET a 1\nGET a\nquit\nGET b\n", REDIS_URL=valkey.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, '"OK"\n"1"\n', "")


def test_without_a_redis_it_is_one_line_and_exit_2(tmp_path: Path) -> None:
    done = run(tmp_path, "")
    assert done.returncode == 2
    assert done.stderr.startswith("no embedded Valkey is running: start `make run-5`")


def test_a_redis_that_is_down_is_an_error_for_each_line(tmp_path: Path) -> None:
    with closed_port() as port:
        done = run(tmp_path, "GET a\n", REDIS_URL=f"redis://127.0.0.1:{port}/0")
    assert done.returncode == 0
    assert done.stdout.startswith("(error) Redis: ")


@pytest.mark.parametrize("topology", ["sentinel", "cluster"])
def test_it_finds_an_embedded_redis_of_several_servers(topology: str, tmp_path: Path) -> None:
    lines = "".join(f"SET {key} {key}\nGET {key}\n" for key in "abcdef")  # in a cluster they are on all three primaries
    with Service(Settings.model_construct(data_dir=tmp_path), topology):
        done = run(tmp_path, f"ROLE\n{lines}")
    assert done.stdout.startswith('1) "master"'), done.stderr
    assert done.stdout.endswith("".join(f'"OK"\n"{key}"\n' for key in "abcdef"))
    assert done.stderr == ""
