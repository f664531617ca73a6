"""What Redis holds in this exercise, and the right answers."""

from random import Random
from typing import Any, NamedTuple

from redis.asyncio import Redis

from resque import Queue
from resque.wire import failure, make_job

SEED = 2016
DAY = 86_400
NOON = 1_893_456_000  # 2030-01-01, unix seconds: a date in the future
NAMES = ("alice", "bob", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "olivia", "peggy")
QUEUES = ("emailQueue", "invoiceQueue", "newsletterQueue")
WORKER = "shop.1f2e3d4c:4711+0:emailQueue"


class Facts(NamedTuple):
    """The right answers, by the names that they have in answers.toml."""

    type_of_queue: str
    waiting: int
    queue_of_carol: str
    ahead_of_carol: int
    first_delayed: str
    in_progress: str
    why_dave_failed: str


class Data:
    """The same data for the same seed."""

    def __init__(self, seed: int = SEED) -> None:
        random = Random(seed)
        self.queues = {queue: [self._address(random) for _ in range(random.randrange(7, 15))] for queue in QUEUES}
        self.carol = random.choice(QUEUES[1:])
        self.ahead = random.randrange(3, 7)
        self.queues[self.carol].insert(self.ahead, "carol@example.com")
        people = random.sample([name for name in NAMES if name != "dave"], 4)
        self.delayed = {f"{name}@example.com": NOON + random.randrange(1, 300) * DAY for name in people[:3]}
        self.in_progress = f"{people[3]}@example.com"
        reasons = random.sample(["Refused", "Unavailable", "InDoubt", "LoginFailed", "BadEmail"], 5)
        others = [(self._address(random, "dave"), reason) for reason in reasons[1:]]
        self.failed = [*others[:2], ("dave@example.com", reasons[0]), *others[2:]]

    @staticmethod
    def _address(random: Random, but: str = "") -> str:
        return f"{random.choice([name for name in NAMES if name != but])}@example.com"

    def facts(self) -> Facts:
        first = min(self.delayed, key=lambda to: self.delayed[to])
        waiting = len(self.queues["emailQueue"])
        [why] = [reason for to, reason in self.failed if to == "dave@example.com"]
        return Facts("list", waiting, self.carol, self.ahead, first, self.in_progress, why)

    async def fill(self, redis: Redis) -> None:
        queue, raw = Queue(redis), self._job
        jobs = [(name, to) for name, people in self.queues.items() for to in people]
        for number, (name, to) in enumerate(jobs):  # an id that another queue has is ignored
            await queue.enqueue(name, "sendEmail", [self._email(to, number)])
        for number, (to, due) in enumerate(self.delayed.items()):
            await queue.enqueue_at(due, "emailQueue", "sendEmail", [self._email(to, 100 + number)])
        record = f'{{"queue":"emailQueue","run_at":"now","payload":{raw(self.in_progress, 200)}}}'
        client: Any = redis
        await client.set("resque:stat:processed", 41)
        await client.sadd("resque:workers", WORKER)
        await client.set(f"resque:worker:{WORKER}", record)
        for number, (to, reason) in enumerate(self.failed):
            job = make_job("emailQueue", "sendEmail", [self._email(to, 300 + number)])
            facts = {"queue": "emailQueue", "worker": WORKER, "exception": reason, "error": "see the exception"}
            await client.rpush("resque:failed", failure(job, **facts, backtrace=[], now=NOON, raw=job.raw))

    def _job(self, to: str, number: int) -> str:
        return make_job("emailQueue", "sendEmail", [self._email(to, number)]).raw

    @staticmethod
    def _email(to: str, number: int) -> dict[str, str]:
        return {"id": f"<explore-{number}@example.com>", "to": to, "subject": "Your order", "text": f"Order {number}"}
