"""A log with old events and a consumer `email`; then the learner's consumer, killed and replayed."""

from collections import Counter
from typing import Any
from uuid import uuid4

from eventlog.events import Event
from eventlog.partitions import PartitionedLog
from workshop.program import LIMIT, Failed
from workshop.proxy import CutAfter, Proxy
from workshop.trial import Trial, until

DOMAINS = ("example.com", "example.org", "example.net")
OLD, NEW = 9, 4
CUTS = (1, 2, 3)
LEASE_SECONDS, LONG_LEASE_SECONDS = 2.0, 60.0
LOOK = "consumer.py: "


class Bus:
    """The log, its producer and the consumer `email`, all in the check."""

    def __init__(self, trial: Trial, redis: Any, log: PartitionedLog) -> None:
        self.events: list[Event] = []
        self.emails = 0
        self._trial = trial
        self._redis = redis
        self._log = log

    async def append(self, number: int) -> None:
        for _ in range(number):
            address = f"alice@{self._trial.random.choice(DOMAINS)}"
            self.events.append(Event(uuid4().hex, "email_requested", {"to": address}))
            await self._log.append(self.events[-1])

    async def send_emails(self) -> None:
        """The consumer `email` handles what it gets."""
        while claimed := await self._log.claim("email", 100):
            for one in claimed:
                await self._log.commit(one)
            self.emails += len(claimed)

    def expected(self) -> Counter[str]:
        return Counter(event.data["to"].rpartition("@")[2] for event in self.events)

    async def counts(self) -> Counter[str]:
        found = await self._redis.hgetall("exercise:sent")
        return Counter({domain.decode(): int(count) for domain, count in found.items()})

    async def expect(self, when: str, look: str, limit: float = 8.0) -> None:
        """Wait until the counts are right, and stay right for a moment."""
        found = Counter[str]()
        for _ in range(int(limit / 0.1)):
            if (found := await self.counts()) == self.expected():
                break
            await until(lambda: False, 0.1)
        await until(lambda: False, 0.2)
        found = await self.counts()
        if found != self.expected():
            happened = f"{found.total()} were counted: {dict(sorted(found.items()))}"
            expected = f"{len(self.events)} events are counted {when}: {dict(sorted(self.expected().items()))}"
            raise Failed(expected, happened, LOOK + look)

    async def overtaken(self) -> None:
        """Another process of the learner's consumer claims an event and gives it back after newer ones were counted."""
        [name] = set(await self._log.consumers()) - {"email"}
        await self.append(3)
        async with PartitionedLog(self._redis, LONG_LEASE_SECONDS) as other:
            [held] = await other.claim(name, 1)
            consumer = await self._trial.start("consumer.py", ready="ready")
            for _ in range(int(LIMIT / 0.1)):
                if (await self.counts()).total() >= len(self.events) - 1:
                    break
                await until(lambda: False, 0.1)
            await other.put_back(held, 0.0)
        await self.expect("when one of them comes after newer ones", "how does it know which events it has counted?")
        await consumer.kill()

    async def expect_committed(self, limit: float = 8.0) -> None:
        """Wait until one consumer beside `email` has committed all events."""
        for _ in range(int(limit / 0.1)):
            names = sorted(set(await self._log.consumers()) - {"email"})
            lags = [await self._log.lag(name) for name in names]
            if len(names) == 1 and not lags[0].waiting + lags[0].pending:
                return
            await until(lambda: False, 0.1)
        left = max((lag.waiting + lag.pending for lag in lags), default=0)
        happened = f"the log has the consumers {', '.join(names)} beside `email`; {left} events are not committed"
        raise Failed("one new consumer commits each event", happened, f"{LOOK}its name, and commit")


async def check(trial: Trial) -> str:
    redis = await trial.redis()
    async with PartitionedLog(redis, LEASE_SECONDS) as log:
        bus = Bus(trial, redis, log)
        await log.claim("email", 1)  # registers it
        await bus.append(OLD)
        await bus.send_emails()
        consumer = await trial.start("consumer.py", ready="ready")
        await bus.append(NEW)
        await bus.expect(f"when {OLD} of them are older than the consumer", "which events does it get?")
        await consumer.kill()
        await killed(trial, bus)
        await bus.overtaken()
        await replayed(trial, bus)
        await bus.send_emails()
        if bus.emails != len(bus.events):
            happened = f"it got {bus.emails}; the others went to your consumer"
            raise Failed(f"the consumer `email` gets all {len(bus.events)} events", happened, f"{LOOK}its name")
    return f"{len(bus.events)} events were counted once, after {len(CUTS)} kills and two replays"


async def killed(trial: Trial, bus: Bus) -> None:
    for number in CUTS:
        await bus.append(2)
        cut = CutAfter(number, b"exercise:")
        async with Proxy(trial.redis_url, lambda chunk, cut=cut: before_commit(cut, chunk)) as proxy:  # type: ignore[misc]
            consumer = await trial.start("consumer.py", REDIS_URL=proxy.url)
            await until(lambda cut=cut: cut.cut.is_set(), 3)  # type: ignore[misc]
            await consumer.kill()
    consumer = await trial.start("consumer.py", ready="ready")
    await bus.expect("after the consumer was killed three times", "what happens first, the count or the commit?", 12.0)
    await bus.expect_committed()
    await consumer.kill()


async def before_commit(cut: CutAfter, chunk: bytes) -> bool:
    """Count the commits too: they do not name a key of the exercise, but a key of the log that holds a claim."""
    is_commit = b"eventlog:pending" in chunk and b"EVALSHA" in chunk.upper() and b"exercise:" not in chunk
    return await cut(chunk + b"exercise:" if is_commit else chunk)


async def replayed(trial: Trial, bus: Bus) -> None:
    for when in ("after a replay", "after a second replay"):
        before = await bus.counts()
        await trial.run("consumer.py", "replay")
        if await bus.counts() == before:
            raise Failed("a replay sets the counts back", f"they are unchanged: {dict(before)}", f"{LOOK}replay")
        consumer = await trial.start("consumer.py", ready="ready")
        await bus.expect(when, "replay: what has to be forgotten?")
        await consumer.kill()
