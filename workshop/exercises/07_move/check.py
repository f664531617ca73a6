"""The worker is killed while it sends, and between two commands. Another worker takes jobs between two commands."""

import json
from typing import Any

from lab.load.steady import Record
from workshop.inbox import Inbox
from workshop.program import Failed, Program
from workshop.proxy import CutAfter, PauseAfter, Proxy
from workshop.trial import Trial, accepted, let_keys_expire, new_email, settled, until

EMAILS = 6
QUEUE = "exercise:queue"
MARK = b"exercise:"
SENDING = 9  # more commands than it needs until it sends: it is killed then
CUTS = (1, 2, 3, 4, SENDING, 1, SENDING, 2, SENDING, 3)  # commands after which the worker is killed
PAUSES = (2, 3)  # commands after which the worker waits while another one takes the jobs
MORE, WORK_SECONDS = 5, 5.0  # after MORE commands it has sent what it had taken; a worker that blocks sends fewer
LOOK = "worker.py: "


async def enqueue(redis: Any, tag: str, numbers: range) -> list[Record]:
    records = []
    for number in numbers:
        email = new_email(tag, number)
        await redis.rpush(QUEUE, json.dumps(email))
        records.append(accepted(number, email["id"]))
    return records


async def start(trial: Trial, smtp_url: str, name: str, **settings: str) -> Program:
    return await trial.start("worker.py", ready="ready", SMTP_URL=smtp_url, WORKER_NAME=name, **settings)


async def check(trial: Trial) -> str:
    await while_it_sends(trial)
    await between_commands(trial)
    for number in PAUSES:
        await beside_another(trial, number)
    return f"no email was lost by a SIGKILL while sending, nor by {len(CUTS)} between two commands"


async def while_it_sends(trial: Trial) -> None:
    redis, inbox = await trial.redis(), await trial.inbox()
    inbox.gate.clear()
    records = await enqueue(redis, "move", range(EMAILS))
    first = await start(trial, inbox.smtp_url, "one")
    await until(lambda: bool(inbox.begun))
    await first.kill()
    await let_keys_expire(redis, "exercise:*")
    inbox.gate.set()
    other = await start(trial, inbox.smtp_url, "two")
    await settled(lambda: len(inbox.arrivals), EMAILS - 1, quiet=0.6, limit=2)
    if len(inbox.arrivals) > EMAILS - 1:
        happened = "it sent the job of worker one, which may be slow and not dead"
        raise Failed("worker two leaves the job of worker one alone", happened, f"{LOOK}start()")
    again = await start(trial, inbox.smtp_url, "one")
    await settled(lambda: len(inbox.arrivals), EMAILS, limit=2)
    found = trial.account(records, inbox, "move")
    trial.measured = float(found.lost)
    trial.check_account(found, f"{LOOK}where is the job while its email is sent?")
    await other.kill()
    await again.kill()
    order = [arrival.to for arrival in inbox.arrivals if arrival.to != "move-0@example.com"]
    if order != sorted(order):
        raise Failed(
            "jobs are taken in the order in which they were enqueued", f"the order was {order}", f"{LOOK}take()"
        )
    last = await start(trial, inbox.smtp_url, "one")
    await settled(lambda: len(inbox.arrivals), EMAILS, quiet=0.2)
    await last.kill()
    trial.check_account(trial.account(records, inbox, "move"), f"{LOOK}done()")
    if left := [key.decode() async for key in redis.scan_iter("exercise:*")]:
        raise Failed("no job is left in Redis when all are done", f"there is {', '.join(left)}", f"{LOOK}done()")


async def between_commands(trial: Trial) -> None:
    redis, inbox = await trial.redis(), await trial.inbox()
    records = []
    inbox.gate.clear()
    for round_, number in enumerate(CUTS):
        records += await enqueue(redis, "cut", range(10 * round_, 10 * round_ + 2))
        cut = CutAfter(number, MARK)
        async with Proxy(trial.redis_url, cut) as proxy:
            worker = await trial.start("worker.py", SMTP_URL=inbox.smtp_url, WORKER_NAME="one", REDIS_URL=proxy.url)
            await until(lambda cut=cut: cut.cut.is_set() or bool(inbox.in_flight), 10)  # type: ignore[misc]
            await worker.kill()
        await until(lambda: not inbox.in_flight)
    inbox.gate.set()
    last = await start(trial, inbox.smtp_url, "one")
    await settled(lambda: len({arrival.to for arrival in inbox.arrivals}), len(records), limit=2)
    await last.kill()
    found = trial.account(records, inbox, "cut")
    trial.check_account(found, f"{LOOK}is there a moment at which no list has the job, or two lists have it?")
    order = [arrival.to for arrival in inbox.arrivals]
    enqueued = [f"cut-{number}@example.com" for number, *_ in records]
    if order != enqueued:
        sent, older = next(pair for pair in zip(order, enqueued, strict=True) if pair[0] != pair[1])
        happened = f"after a restart, {sent} was taken before {older}"
        raise Failed("jobs are taken in the order in which they were enqueued", happened, f"{LOOK}start()")


async def beside_another(trial: Trial, number: int) -> None:
    """The worker waits between two of its commands, while another one takes all jobs that are in the queue."""
    redis: Any = await trial.redis()
    inbox = await trial.inbox()
    await enqueue(redis, "beside", range(EMAILS))
    pause = PauseAfter(number, MARK)
    async with Proxy(trial.redis_url, pause) as proxy:
        one = await trial.start("worker.py", SMTP_URL=inbox.smtp_url, WORKER_NAME="one", REDIS_URL=proxy.url)
        await until(lambda: pause.seen > number)
        taken = {json.loads(raw)["to"] for raw in await redis.lpop(QUEUE, EMAILS) or []}
        pause.over.set()
        await until(lambda: pause.seen > number + MORE or bool(taken & arrived(inbox)), WORK_SECONDS)
        await one.kill()
    if twice := taken & arrived(inbox):
        happened = f"{min(twice)} was sent, although another worker had taken this job in the meantime"
        expected = "no email arrives twice, because two workers never take the same job"
        raise Failed(expected, happened, f"{LOOK}take()")


def arrived(inbox: Inbox) -> set[str]:
    return {arrival.to for arrival in inbox.arrivals}
