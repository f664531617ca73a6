"""A worker that answers at once, and once late, behind a network that delays SUBSCRIBE."""

import asyncio
import json
import re
import time
from uuid import uuid4

from redis.asyncio import Redis

from asynckit.tasks import end_tasks
from lab.harness.account import account
from lab.harness.mailbox import Arrival
from lab.load.steady import Record
from workshop.program import LIMIT, Failed
from workshop.proxy import Proxy
from workshop.trial import Trial, until

TAG = "ask"
DELAY_SECONDS, LONG_DELAY_SECONDS = 0.2, 6.0
SLOW_SECONDS = 3.0  # of the worker
SHORT, LONG, VERY_LONG = "1", "15", "600"  # ANSWER_SECONDS
LOOK = "ask.py, ask(): in which order?"


class Worker:
    """Answers each email with what `answers` has for it; None: not at all."""

    def __init__(self, redis: Redis, channel: str) -> None:
        self.received: list[tuple[str, str]] = []
        """Recipient and id."""
        self.arrivals: list[Arrival] = []
        self.answers: dict[str, str | None] = {}
        self.late: list[tuple[str, str]] = []
        """Reply channels and answers that are published before the next answer."""
        self.seconds = 0.0
        """How long it takes to answer."""
        self._redis = redis
        self._channel = channel
        self.ready = asyncio.Event()

    async def run(self) -> None:
        async with self._redis.pubsub() as emails:
            await emails.subscribe(self._channel)
            async for message in emails.listen():
                if message["type"] == "subscribe":
                    self.ready.set()
                else:
                    await self._answer(json.loads(message["data"]))

    async def _answer(self, email: dict[str, str]) -> None:
        self.received.append((email["to"], email["id"]))
        self.arrivals.append(Arrival(time.perf_counter_ns(), email["to"], email["id"]))
        answer = self.answers.get(email["to"], "sent")
        if answer is None:
            self.late.append((email["reply_to"], "failed"))
            return
        for channel, late in self.late:
            await self._redis.publish(channel, late)
        self.late.clear()
        await asyncio.sleep(self.seconds)
        await self._redis.publish(email["reply_to"], answer)


async def check(trial: Trial) -> str:
    redis = await trial.redis()
    channel = f"emailz:{uuid4().hex}"  # channels belong to no database
    worker = Worker(redis, channel)
    seconds = DELAY_SECONDS

    async def delay(chunk: bytes) -> bool:
        if b"SUBSCRIBE" in chunk.upper():
            await asyncio.sleep(seconds)
        return True

    async with Proxy(trial.redis_url, delay) as proxy:
        settings = {"REDIS_URL": proxy.url, "CHANNEL": channel}
        alone = await trial.start("ask.py", address(90), ANSWER_SECONDS=VERY_LONG, **settings)
        await until(lambda: alone.status is not None)
        look = "ask.py, ask(): what does `publish` return?"
        expect(alone.text(), {90: "no worker"}, "no worker is subscribed, without waiting for an answer", look)
        running = asyncio.create_task(worker.run())
        try:
            await until(worker.ready.is_set)
            failing = trial.random.randrange(4)
            worker.answers[address(failing)] = "failed"
            asked = await trial.run("ask.py", *map(address, range(4)), ANSWER_SECONDS=SHORT, **settings)
            trial.measured = float(asked.text().count("no answer"))
            expected = {n: "failed" if n == failing else "sent" for n in range(4)}
            expect(asked.text(), expected, "the worker answers immediately")
            worker.answers[address(10)] = None
            late = await trial.run("ask.py", *map(address, (10, 11)), ANSWER_SECONDS=SHORT, **settings)
            expect(late.text(), {10: "no answer", 11: "sent"}, "the answer to the first email comes too late")
            seconds, worker.seconds = LONG_DELAY_SECONDS, SLOW_SECONDS
            why = f"your SUBSCRIBE arrives {seconds:g} s late, and the worker answers after {SLOW_SECONDS:g} s"
            slow = await trial.run("ask.py", address(20), ANSWER_SECONDS=LONG, **settings)
            expect(slow.text(), {20: "sent"}, why)
        finally:
            await end_tasks([running])
    check_once(trial, worker)
    return "no answer was missed, and each email was published once"


def check_once(trial: Trial, worker: Worker) -> None:
    ids = dict(reversed(worker.received))
    records: list[Record] = [(n, 0, 0, trial.began, 202, ids.get(address(n), "")) for n in (0, 1, 2, 3, 10, 11, 20)]
    found = account(records, worker.arrivals, TAG)
    trial.check_account(found, "ask.py, ask(): how often does it publish?")


def address(number: int) -> str:
    return f"{TAG}-{number}@example.com"


def expect(text: str, answers: dict[int, str], when: str, look: str = LOOK) -> None:
    for number, answer in answers.items():
        found = re.search(rf"^{address(number)}: (.*)$", text, re.MULTILINE)
        if found is None or found[1] != answer:
            happened = f"it printed `{found[0]}`" if found else f"it printed no line for this email within {LIMIT:g} s"
            raise Failed(f"`{address(number)}: {answer}` when {when}", happened, look)
