"""`make backup` and `make restore FILE=…` for the embedded Valkey."""

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from common.services.service import running
from tests.support.programs import LIMIT, ROOT, clean_environment
from tests.support.servers import running_valkey


def backup(data_dir: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment() | {"DATA_DIR": str(data_dir), "VALKEY_PORT": "0"} | settings
    command = [sys.executable, "-m", "common.services.backup", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def saved(done: subprocess.CompletedProcess[str], keys: int) -> str:
    match = re.fullmatch(rf"saved {keys} keys, \d+ bytes: (\S+\.rdb)\n", done.stdout)
    assert match, done.stdout + done.stderr
    return match[1]


def fill(valkey: Redis) -> None:
    valkey.rpush("resque:queue:emailQueue", "a", "b", "c")
    valkey.xadd("log", {"event": "x"})
    valkey.set("written", "before")


def test_a_backup_of_a_running_valkey_brings_back_its_keys(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        fill(valkey.client)
        file = saved(backup(tmp_path, "backup"), keys=3)
        valkey.client.set("written", "after")
        valkey.client.delete("log")
        refused = backup(tmp_path, "restore", file)
        assert refused.returncode == 2
        assert refused.stderr == f"Valkey is running @ {valkey.pid}: stop the programs that use it first\n"
    done = backup(tmp_path, "restore", file)
    kept = re.search(rf"^restored 3 keys from {re.escape(file)}; the data before is in (\S+)\n", done.stdout)
    assert kept, done.stdout + done.stderr
    with running_valkey(tmp_path) as valkey:
        assert valkey.client.lrange("resque:queue:emailQueue", 0, -1) == ["a", "b", "c"]
        assert (valkey.client.get("written"), valkey.client.xlen("log")) == ("before", 1)
        assert valkey.client.config_get("appendonly") == {"appendonly": "yes"}
        assert not (tmp_path / "valkey" / "dump.rdb").exists()
        valkey.client.set("written", "since")
    with running_valkey(tmp_path) as valkey:  # what is written after a restore is kept too
        assert valkey.client.get("written") == "since"
    (tmp_path / "valkey").rename(tmp_path / "restored")
    Path(kept[1]).rename(tmp_path / "valkey")
    with running_valkey(tmp_path) as valkey:
        assert (valkey.client.get("written"), valkey.client.xlen("log")) == ("after", 0)


def test_valkey_is_started_for_a_backup_and_stopped_after_it(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        fill(valkey.client)
    saved(backup(tmp_path, "backup"), keys=3)
    assert running(tmp_path, "valkey") is None


def test_a_damaged_backup_is_refused_and_the_data_stays(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        fill(valkey.client)
        file = Path(saved(backup(tmp_path, "backup"), keys=3))
    content = bytearray(file.read_bytes())
    content[content.index(b"emailQueue")] ^= 1
    for damaged in (bytes(content), file.read_bytes()[:-20], b"not a snapshot"):
        (tmp_path / "damaged.rdb").write_bytes(damaged)
        done = backup(tmp_path, "restore", str(tmp_path / "damaged.rdb"))
        assert done.returncode == 2
        assert done.stderr.startswith("restore: Valkey cannot load it: it is damaged")
    with running_valkey(tmp_path) as valkey:
        assert valkey.client.get("written") == "before"


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "no name"])
def test_only_a_file_is_restored(kind: str, tmp_path: Path) -> None:
    names = {"missing": f"{tmp_path}/none.rdb", "folder": str(tmp_path), "device": "/dev/null", "no name": ""}
    name = names.get(kind, f"{tmp_path}/pipe")
    if kind == "pipe":
        os.mkfifo(name)
    command = ["make", "--no-print-directory", "restore", f"FILE={name}"]
    environment = clean_environment() | {"DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    line = f"there is no file {name}" if kind == "missing" else f"{name or '.'} is not a file"
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (2, "", f"restore: {line}")
    assert not (tmp_path / "data" / "valkey").exists()


def test_only_the_embedded_valkey_is_backed_up(tmp_path: Path) -> None:
    for settings in ({"REDIS_URL": "redis://127.0.0.1:1/0"}, {"REDIS": "sentinel"}):
        done = backup(tmp_path, "backup", **settings)
        assert done.returncode == 2
        assert "only the data of the single embedded Valkey is backed up and restored" in done.stderr


@pytest.mark.parametrize("topology", ["sentinel", "cluster"])
@pytest.mark.parametrize("words", [("backup",), ("restore", "x.rdb")])
def test_a_redis_of_several_servers_is_refused_with_one_line(
    topology: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    """Without this check, `make backup` would start another Valkey and save that one."""
    with open(tmp_path / f"{topology}.json", "w") as announcement:
        fcntl.flock(announcement, fcntl.LOCK_EX)
        announcement.write('{"pid": 1}')
        announcement.flush()
        done = backup(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"a Redis with REDIS={topology} is running: only the data of the single embedded")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "valkey").exists()
