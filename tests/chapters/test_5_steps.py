"""The steps of chapter 5: what each one loses when its worker is killed, as its card says."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.programs import Program, a_name, freeze, running_strategy, wait_until
from tests.support.servers import Inbox, Valkey

pytestmark = pytest.mark.usefixtures("clean")


QUEUE = "resque:queue:emailQueue"


@contextmanager
def running_worker(step: str, valkey: Valkey, inbox: Inbox, name: str = "one") -> Iterator[Program]:
    """A worker as a program of its own: a step, or the full design if `step` is empty."""
    settings = {"STEP": step, "WORKER_NAME": name, "LEASE_SECONDS": "1", "DRAIN_SECONDS": "0.2"}
    urls = {"REDIS_URL": valkey.url, "SMTP_URL": inbox.smtp_url}
    program = Program([sys.executable, "-m", "5_remote_queue", "worker"], settings | urls)
    try:
        yield program
    finally:
        program.stop()


def enqueue(valkey: Valkey, name: str) -> str:
    """Put a job into the queue as any program does. Returns its JSON."""
    email = {"to": f"{name}@example.com", "subject": "Hello", "text": "Hi", "id": f"<{name}@example.com>"}
    job = json.dumps({"class": "sendEmail", "queue": "emailQueue", "args": [email]})
    valkey.client.rpush(QUEUE, job)
    return job


def kill_while_sending(program: Program, valkey: Valkey, inbox: Inbox) -> tuple[str, str]:
    """Kill the worker after it has taken a job and before the mail server's 250: the email's name, and its job."""
    inbox.dial(hang_rate=1)
    name = a_name()
    job = enqueue(valkey, name)
    wait_until(lambda: valkey.client.llen(QUEUE) == 0, "the worker has taken the job")
    os.kill(program.process.pid, signal.SIGKILL)
    program.process.wait()
    inbox.dial(hang_rate=0)
    return name, job


def send_another(valkey: Valkey, inbox: Inbox) -> None:
    """An email that arrives: the worker that runs now works."""
    name = a_name()
    enqueue(valkey, name)
    inbox.wait_for(f"{name}@example.com")


def all_values(valkey: Valkey) -> str:
    """Everything that Redis holds, as one string."""
    lists = [valkey.client.lrange(key, 0, -1) for key in valkey.client.scan_iter(_type="list")]
    strings = [valkey.client.get(key) for key in valkey.client.scan_iter(_type="string")]
    return f"{lists}{strings}"


def test_pop_loses_what_its_killed_worker_was_sending(valkey: Valkey, inbox: Inbox) -> None:
    with running_worker("pop", valkey, inbox) as program:
        send_another(valkey, inbox)
        name, _ = kill_while_sending(program, valkey, inbox)
    with running_worker("pop", valkey, inbox):
        send_another(valkey, inbox)
    assert not inbox.messages(f"{name}@example.com")
    assert name not in all_values(valkey), "nothing in Redis can bring the email back"


def test_move_loses_nothing_when_the_same_worker_comes_back(valkey: Valkey, inbox: Inbox) -> None:
    with running_worker("move", valkey, inbox) as program:
        name, job = kill_while_sending(program, valkey, inbox)
    assert valkey.client.lrange("resque:step:move:one", 0, -1) == [job]
    with running_worker("move", valkey, inbox):
        inbox.wait_for(f"{name}@example.com")
        wait_until(lambda: not valkey.client.exists("resque:step:move:one"), "the job is acknowledged")


def test_move_never_sends_what_a_worker_held_that_does_not_come_back(valkey: Valkey, inbox: Inbox) -> None:
    with running_worker("move", valkey, inbox) as program:
        name, job = kill_while_sending(program, valkey, inbox)
    with running_worker("move", valkey, inbox, name="two"):
        send_another(valkey, inbox)
    assert not inbox.messages(f"{name}@example.com")
    assert valkey.client.lrange("resque:step:move:one", 0, -1) == [job]


def test_move_puts_jobs_back_in_their_old_order(valkey: Valkey, inbox: Inbox) -> None:
    valkey.client.rpush("resque:step:move:one", *"abc")
    valkey.client.rpush(QUEUE, *"de")
    with running_worker("move", valkey, inbox):
        wait_until(lambda: valkey.client.llen("resque:failed") == 5, "all five have failed: they are not jobs")
    failed = [json.loads(record)["raw"] for record in valkey.client.lrange("resque:failed", 0, -1)]
    assert sorted(failed) == [*"abcde"]


@pytest.mark.parametrize(("first", "second"), [("lease", "lease"), ("lease", ""), ("", "lease")])
def test_another_worker_finishes_the_jobs_of_a_killed_one(
    first: str, second: str, valkey: Valkey, inbox: Inbox
) -> None:
    """The step and the full design share keys and records."""
    with running_worker(first, valkey, inbox) as program:
        name, _ = kill_while_sending(program, valkey, inbox)
    with running_worker(second, valkey, inbox, name="two"):
        inbox.wait_for(f"{name}@example.com")
        wait_until(lambda: name not in all_values(valkey), "the job is acknowledged")


def test_a_worker_whose_lease_has_ended_cannot_acknowledge_the_job_of_another(valkey: Valkey, inbox: Inbox) -> None:
    """The first is suspended while it sends; the second takes the job over; then the first goes on."""
    inbox.dial(latency_ms=8000)
    with running_worker("lease", valkey, inbox) as one:
        name = a_name()
        enqueue(valkey, name)
        inbox.wait_for(f"{name}@example.com")  # its 250 comes eight seconds later
        [first] = records(valkey)
        freeze(one.process.pid)
        inbox.dial(latency_ms=0, hang_rate=1)  # for the second worker: it does not get its 250
        with running_worker("lease", valkey, inbox):
            wait_until(lambda: records(valkey) not in ([], [first]), "the second worker has the job")
            os.kill(one.process.pid, signal.SIGCONT)
            one.wait_for_line("sent <")
            wait_until(lambda: leases_of(valkey, first), "the first worker claims again")
            [second] = records(valkey)
            assert second != first
            assert name in str(valkey.client.get(second)), "it is still the second worker's"
    inbox.dial(hang_rate=0)


def records(valkey: Valkey) -> list[str]:
    """The keys of the records of all slots that have a job."""
    return [key for key in valkey.client.scan_iter("resque:worker:*") if key.endswith(":emailQueue")]


def leases_of(valkey: Valkey, record: str) -> bool:
    return valkey.client.zscore("resque:py:leases", record.removeprefix("resque:worker:")) is not None


@pytest.mark.parametrize("step", ["pop", "move", "lease"])
def test_what_fails_is_in_the_failed_list(step: str, valkey: Valkey, inbox: Inbox) -> None:
    with running_worker(step, valkey, inbox):
        valkey.client.rpush(QUEUE, "rubbish", '{"class":"sendEmail","args":[]}')
        wait_until(lambda: valkey.client.llen("resque:failed") == 2, "both have failed")
        send_another(valkey, inbox)


def test_make_run_5_with_a_step(inbox: Inbox, tmp_path: Path) -> None:
    with running_strategy("5_remote_queue", tmp_path, SMTP_URL=inbox.smtp_url, STEP="pop") as strategy:
        name = a_name()
        assert strategy.send(f"{name}@example.com").status == 202
        inbox.wait_for(f"{name}@example.com")
        stats = strategy.stats()
        assert (stats["waiting"], stats["failed"]) == (0, 0)
        assert stats["in_flight"] is stats["sent"] is stats["oldest_wait_seconds"] is None
        assert "scheduler" not in strategy.program.output, "only the web server and the step's worker run"
