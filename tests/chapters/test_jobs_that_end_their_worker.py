"""A job or a handler that ends its worker process, in any way and with any exit status, fails alone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.programs import LIMIT, Program, Strategy, ask, wait_until
from tests.support.runner import FREE_PORTS
from tests.support.sessions import a_copy

MISBEHAVE = '''
import asyncio
import os
import sys


async def misbehave(way: str) -> None:
    """Called with the subject of each email before the email is sent."""
    loop = asyncio.get_running_loop()
    if way == "exit once" and not os.path.exists("exited"):
        os.mkdir("exited")
        os._exit(2)
    if way == "exit":
        os._exit(2)
    if way == "exit in a callback":
        loop.call_soon(sys.exit, 2)
    elif way == "stop the loop":
        loop.stop()
    elif way == "cancel all tasks":
        for task in asyncio.all_tasks():
            task.cancel()
    else:
        return
    await asyncio.sleep(3600)
'''
WAYS = ("exit", "exit in a callback", "stop the loop", "cancel all tasks")
DEATHS = 3  # after which an email is given up
SHORTER = (  # in the copy, so that the tests take less time
    ("5_remote_queue/worker.py", "CRASH_LIMIT = 5", f"CRASH_LIMIT = {DEATHS}"),
    ("common/amqp/queues.py", "DELIVERY_LIMIT = 20", f"DELIVERY_LIMIT = {DEATHS}"),
    ("common/processes/supervisor.py", "RESTART_SECONDS = 1.0", "RESTART_SECONDS = 0.01"),
)
ENGINES = {
    "5": {},
    "6": {},
    "6 on Redis Streams": {"LOG": "streams"},
    "6 on JetStream": {"LOG": "jetstream", "NATS_PORT": "0"},
}


@contextmanager
def misbehaving(number: str, tmp_path: Path, **environment: str) -> Iterator[tuple[Strategy, str]]:
    """The strategy, whose worker misbehaves as an email's subject says, and the URL of its inbox."""
    with a_copy(tmp_path / "copy") as folder:
        (folder / "misbehave.py").write_text(MISBEHAVE)
        sender = folder / "common/mail/sender.py"
        text, count = re.subn(
            r'(    async def send\(self, email: Email.*?""".*?"""\n)',
            r"\1        from misbehave import misbehave\n\n        await misbehave(email.subject)\n",
            sender.read_text(),
            flags=re.DOTALL,
        )
        assert count == 1
        sender.write_text(text)
        for file, line, shorter in SHORTER:
            text = (folder / file).read_text()
            assert text.count(line) == 1
            (folder / file).write_text(text.replace(line, shorter))
        settings = FREE_PORTS | {"LEASE_SECONDS": "0.5", "ATTEMPTS": str(DEATHS), "DATA_DIR": str(tmp_path / "data")}
        program = Program(["make", f"run-{number}"], settings | environment, folder)
        try:
            url = program.wait_for_line(r"listens on (http://\S+)/$", 2 * LIMIT)[1]
            inbox = program.wait_for_line(r"see it arrive +(http://\S+)/")[1]
            yield Strategy(number, program, url), inbox
        finally:
            program.stop()


def recipients(inbox: str) -> set[str]:
    return {message["to"] for message in ask(inbox, "/api/messages?limit=1000").json}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_email_that_ends_its_worker_is_given_up_and_the_others_arrive(engine: str, tmp_path: Path) -> None:
    with misbehaving(engine[0], tmp_path, **ENGINES[engine]) as (strategy, inbox):
        wait_until(strategy.healthy, "an email can be accepted")
        others = {f"other{number}@example.com" for number in range(20)}
        for to in sorted(others):
            assert strategy.send(to).status == 202
        ways = WAYS if engine in ("5", "6") else WAYS[::3]
        for way in ways:
            assert strategy.send("bob@example.com", way).status == 202
        figure = "failed" if engine == "5" else "parked"  # a dying worker may not write its count of failed emails
        wait_until(lambda: strategy.stats()[figure] >= len(ways), "each has been given up", 2 * LIMIT)
        wait_until(lambda: recipients(inbox) >= others, "the others have arrived")
        assert strategy.program.process.poll() is None
        wait_until(lambda: strategy.held() == 0, "nothing is left")
        assert strategy.stats()[figure] == len(ways), "no other email has been given up"
        assert " audit gave up " not in strategy.program.output
        strategy.program.wait_for_line(r"worker @ \d+ ended with exit status 2; starting it again")


def test_on_rabbitmq_the_emails_that_its_worker_has_received_arrive(tmp_path: Path) -> None:
    """RabbitMQ counts the death of a worker for each message that the worker has not acknowledged."""
    with misbehaving("5", tmp_path, QUEUE="rabbitmq", RABBITMQ_PORT="0") as (strategy, inbox):
        wait_until(strategy.healthy, "an email can be accepted")
        assert strategy.send("bob@example.com", "exit").status == 202
        others = {f"other{number}@example.com" for number in range(20)}
        for to in sorted(others):
            assert strategy.send(to).status == 202
        wait_until(lambda: recipients(inbox) >= others, "the others have arrived", 2 * LIMIT)


def test_the_master_restarts_a_worker_that_ends_with_status_2(tmp_path: Path) -> None:
    with misbehaving("3", tmp_path) as (strategy, inbox):
        assert strategy.send("bob@example.com", "exit once").status == 202
        wait_until(lambda: strategy.stats()["restarts_email_worker"] == 1, "the worker has been started again")
        wait_until(lambda: "bob@example.com" in recipients(inbox), "its email has arrived")
