"""The command line: its output and its exit statuses."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asynckit.ids import new_id
from common.processes.chapter import chapter_module
from common.services import service as services
from resque import keys as keys_module
from resque import wire
from tests.support.programs import ROOT, a_name, closed_port
from tests.support.servers import Valkey

commands = chapter_module("5_remote_queue.commands")

JOB = '{"class":"sendEmail","queue":"q","args":[{"to":"a@example.com"}]}'


class Terminal:
    """Runs commands in this process, in the test's own namespace."""

    def __init__(self, valkey: Valkey, capture: pytest.CaptureFixture[str]) -> None:
        self.redis = valkey.client
        self.keys = keys_module.Keys(a_name())
        self._capture = capture

    def __call__(self, *words: str, status: int = 0) -> list[str]:
        """Run a command and return the lines of both output streams."""
        assert commands.main([*words, "--namespace", self.keys.namespace]) == status
        printed = self._capture.readouterr()
        return (printed.out + printed.err).splitlines()

    def fail(self, *errors: str) -> None:
        for error in errors:
            job = {"class": "sendEmail", "args": [error]}
            members = {"failed_at": "2026/11/21 07:39:33 UTC", "payload": job, "exception": "Refused", "error": error}
            self.redis.rpush(self.keys.failed, json.dumps(members | {"backtrace": [], "worker": "x", "queue": "q"}))


@pytest.fixture
def run(valkey: Valkey, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("REDIS_URL", valkey.url)
    return Terminal(valkey, capsys)


# The commands


def test_help_lists_every_command() -> None:
    words = [sys.executable, "-m", "5_remote_queue.commands"]
    printed = subprocess.run([*words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("stats", "failed", "peek", "doctor"):
        assert f"\n    {command} " in printed


@pytest.mark.parametrize(
    "words",
    [["stats"], ["peek"], ["doctor"], ["failed"], ["failed", "list"], ["failed", "requeue"], ["failed", "remove"]],
)
def test_each_command_has_a_help_text(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        commands.main([*words, "--help"])
    assert end.value.code == 0
    assert f"usage: python -m 5_remote_queue.commands {' '.join(words)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        [], ["nix"], ["peek"], ["failed"], ["failed", "requeue"], ["failed", "remove"],
        ["failed", "remove", "1", "--all"], ["failed", "list", "--before", "1e3"],
        ["peek", "q", "--count", "-1"], ["peek", "q", "--count", "x"], ["stats", "x"], ["peek", "\udcff"],
    ],
)  # fmt: skip
def test_a_wrong_command_exits_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        commands.main(words)
    assert end.value.code == 2
    assert "usage: python -m 5_remote_queue.commands" in capsys.readouterr().err


# Reading


def test_stats_lists_every_queue(run: Terminal) -> None:
    keys, redis = run.keys, run.redis
    redis.sadd(keys.queues, "q", "empty", "wrong\x1b[2J")
    job = {"class": "c", "args": [{"id": new_id("example.com")}]}
    redis.rpush(keys.queue("q"), json.dumps(job), JOB)
    redis.set(keys.queue("wrong\x1b[2J"), "x")
    redis.set(keys.paused("q"), "LoginFailed: \x1b[31m")
    redis.hset(keys.totals, "succeeded", 1234)
    run.fail("no")
    lines = run("stats")
    assert lines[0].split() == ["waiting", "2"]
    assert lines[3].split() == ["overdue", "0"]
    assert lines[4].split() == ["failed", "list", "1"]
    assert lines[6] == "all time     1,234 succeeded, 0 failed, 0 retried, 0 crashed, 0 late"
    assert lines[7] == "delayed jobs are promoted by no program"
    assert lines[8] == "queue empty: 0"
    assert lines[9].startswith("queue q: 2, the oldest has waited ")
    assert re.search(r" m?s, paused for our workers: LoginFailed: \?\[31m$", lines[9]), (
        "control characters are replaced"
    )
    assert lines[10] == "queue wrong?[2J: not a list"


def test_stats_can_be_printed_as_json(run: Terminal) -> None:
    run.redis.sadd(run.keys.queues, "q")
    run.redis.rpush(run.keys.queue("q"), JOB)
    figures = json.loads("\n".join(run("stats", "--json")))
    assert figures["waiting"] == 1
    assert figures["queues"] == {"q": {"waiting": 1, "oldest_seconds": None, "paused": None}}
    assert figures["ever"]["succeeded"] == 0


def test_peek_shows_valid_and_invalid_jobs(run: Terminal) -> None:
    wrapped = {"class": "ActiveJob::QueueAdapters::ResqueAdapter::JobWrapper"}
    wrapped |= {"args": [{"job_class": "InvoiceJob", "arguments": [7]}]}  # type: ignore[dict-item]
    run.redis.rpush(
        run.keys.queue("q"), JOB, json.dumps(wrapped), "\x1b]0;x", '{"class":"c","args":["' + "x" * 70_000 + '"]}'
    )
    assert run("peek", "q") == [
        '     1  sendEmail [{"to":"a@example.com"}]',
        "     2  InvoiceJob [7]",
        "     3  invalid: not JSON: unexpected character, expected a JSON value: line 1 column 1 (char 0): ?]0;x",
        "     4  70.0 kB, too large to show",
    ]
    assert run("peek", "q", "--start", "1", "--count", "1") == ["     2  InvoiceJob [7]"]
    assert run("peek", "nix", status=1) == ["no jobs in nix"]


# The failed list


def test_the_failed_list_is_shown_with_numbers_and_ids(run: Terminal) -> None:
    assert run("failed", "list") == ["0 failed jobs"]
    run.fail("one", "two\x1b[2J", "three")
    lines = run("failed", "list", "--count", "2")
    assert [line.split()[0] for line in lines] == ["3", "2", "3"]
    assert lines[1].endswith('  2026-11-21 07:39:33 UTC  sendEmail ["two\\u001b[2J"]  Refused: two?[2J')
    assert lines[2] == "3 failed jobs"
    assert [line.split()[0] for line in run("failed", "list", "--before", "2")] == ["1", "3"]


def test_an_error_of_several_lines_is_shown_in_one(run: Terminal) -> None:
    run.fail("no such mailbox\n  (as of today)\r\n\task the owner\u2028\x85\x1b[2J")
    assert run("failed", "list")[0].endswith("  Refused: no such mailbox   (as of today) ask the owner ?[2J")


@pytest.mark.parametrize("by", ["id", "number"])
def test_one_failed_job_is_requeued_or_removed_by_its_id_or_number(run: Terminal, by: str) -> None:
    run.fail("one", "two", "three")
    lines = run("failed", "list")
    name = [line.split()[by == "id"] for line in lines]
    failure_id = [line.split()[1] for line in lines]
    assert run("failed", "requeue", name[0]) == [f"{failure_id[0]} is back in q"]
    assert run("failed", "remove", name[1]) == [f"removed {failure_id[1]}"]
    assert run.redis.lrange(run.keys.queue("q"), 0, -1) == ['{"class": "sendEmail", "args": ["three"]}']
    assert run.redis.llen(run.keys.failed) == 1
    assert run("failed", "list")[0].split()[1] == failure_id[2]


@pytest.mark.parametrize("which", ["0", "2", "ffffffffffffffff", "x", "", "-1x", "1" * 16, "1" * 400])
@pytest.mark.parametrize("command", ["requeue", "remove"])
def test_a_missing_failed_job_exits_with_1(run: Terminal, command: str, which: str) -> None:
    run.fail("one")
    if which.startswith("-"):
        with pytest.raises(SystemExit):
            run("failed", command, which)
        return
    [line] = run("failed", command, which, status=1)
    assert "no failed job" in line or line.startswith("neither a number nor an id")
    assert run.redis.llen(run.keys.failed) == 1


def test_a_job_that_cannot_be_requeued_says_why(run: Terminal) -> None:
    run.redis.rpush(run.keys.failed, '{"queue":"q","payload":null}')
    assert run("failed", "requeue", "1", status=1) == ["there is no job in the record"]
    assert run("failed", "requeue", "--all", status=1) == [
        "0 jobs are back in their queues; 1 stay: already retried, or not a valid job"
    ]


def test_all_failed_jobs_are_requeued_or_removed(run: Terminal) -> None:
    run.fail(*"abc")
    assert run("failed", "requeue", "--all") == ["3 jobs are back in their queues"]
    assert run("failed", "requeue", "--all", status=1) == ["0 jobs are back in their queues"]
    run.fail(*"ab")
    assert run("failed", "remove", "--all") == ["removed 2 failed jobs"]
    assert run("failed", "remove", "--all", status=1) == ["removed 0 failed jobs"]


# The doctor


def test_the_doctor_describes_a_repair_and_does_it(run: Terminal) -> None:
    run.redis.sadd(run.keys.workers, "host:7:*")
    run.redis.hset(run.keys.heartbeats, "host:7:*", wire.heartbeat_at(time.time()))
    assert run("doctor") == ["no problems found"]
    run.redis.rpush(run.keys.queue("lost\x1b[2J"), JOB)
    run.redis.set(run.keys.node_lock, "x")
    found = [
        f"{run.keys.namespace}:queue:lost?[2J",
        "    jobs wait in a queue that is missing in queues: workers that read that list do not find it",
        "    --repair would add its name to queues",
    ]
    assert run("doctor", status=1)[2:] == [*found, "2 found"]
    lines = run("doctor", "--repair", status=1)
    assert "    repaired: add its name to queues" in lines
    assert lines[-1] == "1 found, and not repaired"
    run.redis.delete(run.keys.node_lock)
    assert run("doctor", "--repair") == ["no problems found"]


def test_the_doctor_lists_only_the_first_findings_of_a_kind(run: Terminal) -> None:
    for second in range(30):
        run.redis.zadd(run.keys.schedule, {str(second): second})
    lines = run("doctor", status=1)
    assert len(lines) == 10 * 3 + 2
    assert lines[-2] == "and 20 more of this kind: scheduled, but there are no jobs at this second"
    assert run("doctor", "--repair")[-1] == "no problems found"


# Where Redis is


def test_without_a_url_the_commands_use_the_valkey_of_this_checkout(
    valkey: Valkey, run: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.redis.rpush(run.keys.queue("q"), JOB)
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with closed_port() as port:
        monkeypatch.setenv("VALKEY_PORT", str(port))
        [line] = run("peek", "q", status=1)
    assert line.startswith("Redis: Error 111 connecting to 127.0.0.1:") or "Connect call failed" in line
    assert line.endswith("(no REDIS_URL is set; `make services` starts the embedded Valkey)")
    with services.claim(tmp_path, "valkey") as announcement:
        services.announce(announcement, pid=valkey.pid, valkey_port=valkey.port)
        assert run("peek", "q") == ['     1  sendEmail [{"to":"a@example.com"}]']
    services._announcements.remove(announcement)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://127.0.0.1:1/secret", "must end with host, port and number"),
        ("http://secret@127.0.0.1", "must begin with redis://"),
        ("redis://127.0.0.1:1/0?secret=1", "has an option that redis-py does not know"),
    ],
)
def test_a_wrong_url_is_one_line_and_exits_with_2(run: Terminal, url: str, reason: str) -> None:
    [line] = run("--redis", url, "stats", status=2)
    assert line.startswith(f"--redis: {reason}")
    assert "secret" not in line


@pytest.mark.parametrize(
    "words", [["stats"], ["peek", "q"], ["doctor"], ["failed", "list"], ["failed", "remove", "--all"]]
)
def test_an_unreachable_redis_is_one_line_without_the_password_and_exits_with_1(
    run: Terminal, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closed_port() as port:
        monkeypatch.setenv("REDIS_URL", f"redis://user:secret@127.0.0.1:{port}/0")
        [line] = run(*words, status=1)
    assert line.startswith("Redis: ")
    assert "secret" not in line


# A closed pipe


@pytest.mark.parametrize(
    "words", [["stats"], ["failed", "list", "--count", "5000"], ["peek", "q", "--count", "5000"], ["--help"]]
)
def test_a_closed_pipe_causes_no_traceback(run: Terminal, words: list[str]) -> None:
    run.fail(*["x" * 100] * 2000)
    run.redis.rpush(run.keys.queue("q"), *[JOB] * 2000)
    options = [] if words == ["--help"] else ["--namespace", run.keys.namespace]
    command = [sys.executable, "-m", "5_remote_queue.commands", *words, *options]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert ended.stderr == ""
    assert ended.returncode == 141 or words == ["--help"], "argparse ignores a failed write"
