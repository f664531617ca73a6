"""A killed worker, a refusal, a mail server that is slower than a lease, and a heartbeat that must not stop."""

import asyncio
import json
import time
from itertools import pairwise
from typing import Any

from lab.load.steady import Record
from workshop.program import LIMIT, POLL_SECONDS, Failed, Program
from workshop.trial import Trial, accepted, new_email, settled, until

LEASE = "1.5"  # seconds
SLOW_SECONDS = 5.0  # more than three leases
SHORT_LEASES = ("0.3", "1.5", "5")  # the next one if a busy machine has suspended the worker for longer than its lease
FEW_RENEWALS, RENEWALS = 10, 200  # of one lease; after the few ones, the clock of the worker moves forward for each
LOOK = "worker.py: "


async def enqueue(redis: Any, tag: str, numbers: range) -> list[Record]:
    records = []
    for number in numbers:
        email = new_email(tag, number)
        await redis.rpush("exercise:queue", json.dumps(email))
        records.append(accepted(number, email["id"]))
    return records


async def check(trial: Trial) -> str:
    await killed(trial)
    await slow(trial)
    await very_slow(trial)
    return "another worker took over from a killed one, and a slow email was sent once"


async def start(trial: Trial, smtp_url: str, lease: str = LEASE) -> Program:
    return await trial.start("worker.py", ready="ready", SMTP_URL=smtp_url, LEASE_SECONDS=lease, MOVABLE_CLOCK="1")


async def killed(trial: Trial) -> None:
    """Worker one is killed while it sends. The other sends its email, and one that is refused at first."""
    redis, inbox = await trial.redis(), await trial.inbox()
    refused = f"lease-{trial.random.randrange(1, 3)}@example.com"
    inbox.refuse = lambda to, attempt: 451 if to == refused and attempt == 1 else 0
    inbox.gate.clear()
    records = await enqueue(redis, "lease", range(4))
    one = await start(trial, inbox.smtp_url)
    await until(lambda: bool(inbox.begun))
    await one.kill()
    inbox.gate.set()
    two = await start(trial, inbox.smtp_url)
    await settled(lambda: len(inbox.arrivals), 4, limit=3)
    found = trial.account(records, inbox, "lease")
    trial.measured = float(found.lost)
    trial.check_account(found, f"{LOOK}which worker puts a job back, and when?")
    begun = [arrival.at for arrival in inbox.begun if arrival.to == refused]
    if (begun[1] - begun[0]) / 1e9 < 0.9 * float(LEASE):
        moments = " and ".join(map(trial.moment, begun))
        raise Failed("a refused job is tried again when its lease has ended", f"it was tried at {moments}", LOOK)
    if not any(begun[0] < arrival.at < begun[1] for arrival in inbox.begun):
        happened = f"it tried {refused} twice, and no other email in between"
        raise Failed("a worker goes on with the next job when an email is refused", happened, f"{LOOK}work_one()")
    await check_empty(redis, two)


async def slow(trial: Trial) -> None:
    """Two workers, one of which has nothing to do, and a mail server that takes longer than a lease."""
    redis, inbox = await trial.redis(), await trial.inbox(SLOW_SECONDS)
    workers = [await start(trial, inbox.smtp_url) for _ in range(2)]
    records = await enqueue(redis, "slow", range(1))
    attempts = lambda: min(2, len(inbox.arrivals) + inbox.in_flight)  # noqa: E731  a second one is already wrong
    await settled(attempts, 1, quiet=SLOW_SECONDS + 0.5, limit=2 * SLOW_SECONDS)
    trial.check_account(trial.account(records, inbox, "slow"), f"{LOOK}does a live worker keep its job?")
    for worker in workers:
        if worker.status is not None:
            raise Failed("the workers continue", f"one ended with status {worker.status}; {worker.tail()}", LOOK)
    await check_empty(redis, workers[0])
    await workers[1].kill()


async def very_slow(trial: Trial) -> None:
    """One worker, short leases, and a mail server that accepts the email after many renewals."""
    for lease in SHORT_LEASES:
        redis, inbox = await trial.redis(), await trial.inbox()
        inbox.gate.clear()
        worker = await start(trial, inbox.smtp_url, lease)
        records = await enqueue(redis, "very-slow", range(1))
        await until(lambda inbox=inbox: bool(inbox.begun))  # type: ignore[misc]
        if await is_renewed(redis, worker, lease):
            inbox.gate.set()
            await settled(lambda inbox=inbox: len(inbox.arrivals), 1)  # type: ignore[misc]
            trial.check_account(trial.account(records, inbox, "very-slow"), f"{LOOK}does a live worker keep its job?")
            return await check_empty(redis, worker)
        await worker.kill()
    raise Failed("a live worker keeps its job", "it has put its own job back into the queue", f"{LOOK}put_back")


async def is_renewed(redis: Any, worker: Program, lease: str) -> bool:
    """Wait for RENEWALS. Returns False if the job was put back instead; raises Failed if the renewals stop."""
    ends: list[float] = []  # of the lease; the first one is from the claim
    since = time.monotonic()
    while len(ends) <= RENEWALS:
        await asyncio.sleep(POLL_SECONDS)
        leases = await redis.zrange("exercise:leases", 0, -1, withscores=True)
        if not leases and await redis.exists("exercise:queue"):
            return False
        if leases and leases[0][1] not in ends:
            ends.append(leases[0][1])
            since = time.monotonic()
            if len(ends) > FEW_RENEWALS:
                worker.move_clock(float(lease))
            else:
                check_intervals(ends, lease)
        elif worker.status is not None or time.monotonic() - since > LIMIT / 2:
            happened = f"a lease of {lease} s was renewed {len(ends) - 1} times, and not again during the send"
            look = f"{LOOK}when does the heartbeat stop?"
            raise Failed("the lease is renewed until the mail server has answered", happened, look)
    return True


def check_intervals(ends: list[float], lease: str) -> None:
    """The shortest interval, because a busy machine makes intervals longer, never shorter."""
    shortest = min((after - before for before, after in pairwise(ends)), default=0.0) / 1000
    if len(ends) == FEW_RENEWALS and shortest > float(lease):
        happened = f"the shortest time between two renewals was {shortest:.1f} s"
        raise Failed(f"a lease of {lease} s is renewed before it ends", happened, f"{LOOK}what is LEASE_SECONDS?")


async def check_empty(redis: Any, worker: Program) -> None:
    left = [key.decode() async for key in redis.scan_iter("exercise:*")]
    for _ in range(50):
        if not left:
            break
        await until(lambda: worker.status is not None, 0.02)
        left = [key.decode() async for key in redis.scan_iter("exercise:*")]
    if left:
        raise Failed("no job is left in Redis when all are done", f"there is {', '.join(left)}", f"{LOOK}done")
    await worker.kill()
