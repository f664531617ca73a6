"""What the queue's pages show in this exercise, and the right answers."""

from random import Random
from typing import Any, NamedTuple

from redis.asyncio import Redis

from resque import Queue
from resque.wire import failure, make_job

SEED = 2016
NOON = 1_893_456_000  # 2030-01-01, unix seconds
DEATHS = 5
QUEUES = ("emailQueue", "invoiceQueue", "pictureQueue")
RETRY, REMOVE, REPAIR = "retry", "remove", "repair"
"""What an operator does with a failed job."""

REASONS = {
    "Unavailable": ("451 4.3.2 try again later, 31 times", RETRY),
    "Refused": ("550 5.1.1 no such user", REMOVE),
    "KeyError": ("'price'", REPAIR),
}


class Failure(NamedTuple):
    id: str
    queue: str
    exception: str
    error: str


class Facts(NamedTuple):
    poison: str
    queue: str
    workers_killed: int
    to_retry: int
    after_the_fix: str


class Data:
    """The same data for the same seed."""

    def __init__(self, seed: int = SEED) -> None:
        random = Random(seed)
        self.failures: list[Failure] = []
        numbers = random.sample(range(1000, 9999), 24)
        for number in numbers[:-1]:
            exception = random.choice([*REASONS])
            queue = "invoiceQueue" if exception == "KeyError" else "emailQueue"
            self.failures.append(Failure(f"order-{number}", queue, exception, REASONS[exception][0]))
        self.poison = Failure(
            f"order-{numbers[-1]}", "pictureQueue", "Resque::DirtyExit", f"its worker died while it ran, {DEATHS} times"
        )
        self.failures.insert(random.randrange(6, 18), self.poison)

    def facts(self) -> Facts:
        to_retry = sum(failure.exception == "Unavailable" for failure in self.failures)
        return Facts(self.poison.id, self.poison.queue, DEATHS, to_retry, REPAIR)

    async def fill(self, redis: Redis) -> None:
        queue = Queue(redis)
        for number in range(12):
            await queue.enqueue(QUEUES[number % 3], "work", [{"id": f"order-{number}", "picture": f"{number}.png"}])
        for number, one in enumerate(self.failures):
            job = make_job(one.queue, "work", [{"id": one.id, "picture": f"{number}.png"}])
            facts = {"queue": one.queue, "worker": f"shop:{4000 + number}", "exception": one.exception}
            record: Any = failure(job, **facts, error=one.error, backtrace=[], now=NOON + number, raw=job.raw)
            await queue.redis.rpush("resque:failed", record)
