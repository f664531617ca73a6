"""The faults of `make faults` that concern Redis, with small programs in place of the strategy's processes."""

import random
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from lab.faults import redis_faults
from lab.faults.running import Running
from tests.support.programs import LIMIT, wait_until


def test_the_web_server_is_not_stopped_until_its_callers_give_up_when_no_worker_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the worker writes only when the web server is stopped for the second time."""
    monkeypatch.setattr(redis_faults, "TAIL_SECONDS", 0.2)
    file = tmp_path / "valkey" / "appendonlydir" / "appendonly.aof.1.incr.aof"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"accepted")
    processes = {role: subprocess.Popen(["sleep", "600"]) for role in ("server", "redis", "runner")}

    def stopped() -> bool:
        return bool(psutil.Process(processes["server"].pid).status() == psutil.STATUS_STOPPED)

    def write() -> None:
        wait_until(stopped, "the web server is stopped")
        wait_until(lambda: not stopped(), "the web server continues")
        wait_until(stopped, "the web server is stopped again")
        file.write_bytes(b"accepted, claimed")

    running = SimpleNamespace(
        pid=lambda role: processes[role].pid,
        redis=lambda: nullcontext(SimpleNamespace(ping=bool)),
        strategy=SimpleNamespace(data_dir=tmp_path, runner=lambda: processes["runner"].pid),
    )
    try:
        with ThreadPoolExecutor() as pool:
            worker = pool.submit(write)
            redis_faults.cut_tail(cast(Running, running), random.Random(1))
            worker.result(LIMIT)
        assert b"accepted" in file.read_bytes() != b"accepted, claimed"
        assert processes["redis"].wait(LIMIT) == -signal.SIGKILL
        assert not stopped()
    finally:
        for process in processes.values():
            process.kill()
            process.wait(LIMIT)
