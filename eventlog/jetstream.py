"""The same log on NATS JetStream: a stream, a durable pull consumer for each handler, and the server's own leases.

    NAME             stream: subject NAME.events, an event as JSON. Its id is the Nats-Msg-Id, by which the server
                      recognises a second copy
    NAME_again       stream, a work queue: subject NAME.again.CONSUMER, a parked event to be handled again
    KV_NAME_parked   key-value bucket: CONSUMER.NUMBER -> a line of JSON {reason, attempts, at, alone}, then the event
                     as in `Claimed.element`
    KV_NAME_notes    key-value bucket: tries.CONSUMER.NUMBER -> JSON, see jetstream_tries.py; start.CONSUMER -> the
                     number at which its last replay began

A claim is a pull, and its lease is the consumer's AckWait. A commit is an ack that the server confirms. The heartbeat
is +WPI ("work in progress"), a pause is a nak with a delay, and the cursor is the consumer's ack floor. The position of
an event is `0-NUMBER`, its number in the stream.

JetStream has no fencing token: the ack of a worker that was suspended for longer than its lease counts, although
another worker may be handling the event a second time. What such a worker has handled counts as handled. But a worker
whose lease has ended by its own clock does not give an event back and does not park it.
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Self

import orjson
from nats.aio.msg import Msg

from .errors import LogError, NotTaken
from .events import Claimed, Event
from .jetstream_inspection import Inspection
from .jetstream_tries import Tries, TriesNotes
from .nats_beats import Beats
from .nats_client import ANSWER_SECONDS, Nats
from .nats_pull import Moved, pull
from .parked import parked_entry

REMEMBER_SECONDS = 120  # the server drops a second event with the same id within this time
LARGEST = 1000  # messages in one pull
LOOK_SECONDS = 1.0  # between two checks for parked events that are to be handled again
AGAIN_SECONDS = 0.05  # between two attempts to append
DEATHS = 2  # an event is handled alone after its owners have died this many times
POSITION, REVISION = "Eventlog-Position", "Eventlog-Revision"  # headers of an event that is handled again


class JetStreamLog(Inspection):
    """An `interface.EventLog`. Methods that ask the server raise LogError."""

    def __init__(self, url: str, lease_seconds: float, name: str = "eventlog", replicas: int = 1) -> None:
        super().__init__(Nats(url, self._prepare), lease_seconds, name)
        self._replicas = replicas
        self._tries = TriesNotes(self._notes)
        self._looks: dict[str, float] = {}  # consumer -> when the next check is due: time.monotonic()
        self._beaten: dict[tuple[str, str], float] = {}  # consumer, position -> its last heartbeat: time.monotonic()
        self._careful: set[str] = set()  # consumers that take one event at a time
        self._waiting: set[asyncio.Future[list[Msg]]] = set()
        self._closing = False

    async def __aenter__(self) -> Self:
        await self.nats.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop_waiting()
        await self.nats.__aexit__()

    async def _prepare(self, nats: Nats) -> None:
        """On each new connection, create what is missing: the server may have lost its data."""
        events = {"subjects": [f"{self.name}.events"], "duplicate_window": REMEMBER_SECONDS * 10**9}
        await nats.make_stream(self.name, num_replicas=self._replicas, **events)
        again = {"subjects": [f"{self.name}.again.*"], "retention": "workqueue"}
        await nats.make_stream(f"{self.name}_again", num_replicas=self._replicas, **again)
        for bucket in (self._parked, self._notes):
            await bucket.create(self._replicas)

    # Producers

    def append(self, event: Event, *, new: bool = False) -> Coroutine[Any, Any, str]:
        """Returns the position of the event when the server has stored it. Raises NotTaken if the server certainly has
        not stored it, and ValueError at once for an invalid event.

        If no answer comes, this publishes the event again until the time is over: the id makes that safe.
        """
        event.check_id()
        return self._append(event)

    async def _append(self, event: Event) -> str:
        subject, headers = f"{self.name}.events", {"Nats-Msg-Id": event.id}
        deadline = time.monotonic() + ANSWER_SECONDS
        in_doubt: LogError | None = None
        while True:
            left = deadline - time.monotonic()
            try:
                return f"0-{await self.nats.publish(subject, event.to_json(), headers, left)}"
            except NotTaken:
                if in_doubt is None:
                    raise
            except LogError as error:
                in_doubt = error
            if time.monotonic() + AGAIN_SECONDS >= deadline:
                raise in_doubt
            await asyncio.sleep(AGAIN_SECONDS)

    async def check(self) -> None:
        """Write something that changes no data. It fails if the server would not store events either."""
        await self._notes.put("check", b"")
        await self._check_limits()

    # Consumers

    async def claim(self, consumer: str, limit: int, wait: float = 0.0) -> list[Claimed]:
        """Claim up to `limit` events; if there are none, wait up to `wait` seconds for the first.

        Parked events that are to be handled again come first. Returns [] early after `stop_waiting`.
        """
        deadline = time.monotonic() + wait
        while True:
            name = await self._register(consumer)
            limit = 1 if consumer in self._careful else limit
            left = deadline - time.monotonic()
            claimed = await self._claim(consumer, name, min(limit, LARGEST), left) if limit else []
            if claimed or self._closing or time.monotonic() >= deadline:
                return claimed

    async def _claim(self, consumer: str, name: str, limit: int, wait: float) -> list[Claimed]:
        until, messages = time.monotonic() + self._lease_seconds, []
        try:
            if time.monotonic() >= self._looks.get(consumer, 0.0):
                messages = await pull(self.nats, f"{self.name}_again", consumer, limit)
                self._looks[consumer] = time.monotonic() + LOOK_SECONDS
            if not messages:
                messages = await pull(self.nats, self.name, name, limit)
            if not messages and wait > 0:
                until += min(wait, LOOK_SECONDS)
                messages = await self._wait(pull(self.nats, self.name, name, 1, min(wait, LOOK_SECONDS)))
        except Moved:  # by a replay, or because the server has lost its data: the next claim registers it again
            self._registered.pop(consumer, None)
            await asyncio.sleep(AGAIN_SECONDS)
        claimed = await asyncio.gather(*[self._claimed(consumer, message, until) for message in messages])
        return await self._without_suspects(consumer, [one for one in claimed if one is not None])

    async def _wait(self, pull: Coroutine[Any, Any, list[Msg]]) -> list[Msg]:
        """Returns [] as soon as `stop_waiting` is called."""
        waiting = asyncio.ensure_future(pull)
        self._waiting.add(waiting)
        try:
            if self._closing:
                waiting.cancel()
            await asyncio.wait([waiting])
        finally:
            self._waiting.discard(waiting)
            waiting.cancel()
        return [] if waiting.cancelled() else waiting.result()

    def stop_waiting(self) -> None:
        self._closing = True
        for waiting in self._waiting:
            waiting.cancel()

    async def _claimed(self, consumer: str, message: Msg, until: float) -> Claimed | None:
        """Returns None for a parked event that was discarded or unparked again in the meantime, for an event that this
        process already holds, and for one whose tries cannot be read at the moment.
        """
        about, headers = message.metadata, message.headers or {}
        position = headers.get(POSITION) or f"0-{about.sequence.stream}"
        element = b"%d %s" % (int(about.timestamp.timestamp() * 1000), message.data)
        if parked := POSITION in headers:
            entry = await self._parked.get(_key(consumer, position))
            if entry is None or str(entry[1]) != headers.get(REVISION):
                await self.nats.request(message.reply, b"+ACK")
                return None
            line, _, element = entry[0].partition(b"\n")
        held = self._still_held(consumer, position)
        first = about.num_delivered == 1 and not held
        tries = Tries() if first else await self._tries.of_delivery(consumer, position, held=held)
        if tries is None:
            return None
        attempts = max(1, about.num_delivered - tries.untried)
        deaths = 0 if parked and orjson.loads(line).get("alone") else DEATHS
        if alone := attempts - 1 - tries.failures >= deaths:  # from here on, only attempts with this event alone count
            attempts = tries.failures + deaths + tries.alone + 1
        return Claimed(consumer, position, attempts, element, until, alone, parked, reply=message.reply)

    def _holds(self, claimed: Claimed) -> bool:
        """Whether its lease has not ended. If it has, another worker may be handling the event."""
        return time.monotonic() < claimed.until or self._still_held(claimed.consumer, claimed.position)

    def _still_held(self, consumer: str, position: str) -> bool:
        """Whether a heartbeat was tried within the last lease: while the server is down, a lease ends at the server."""
        return time.monotonic() - self._beaten.get((consumer, position), -self._lease_seconds) < self._lease_seconds

    async def _without_suspects(self, consumer: str, claimed: list[Claimed]) -> list[Claimed]:
        """Return an event that may have killed its workers alone, so that the next kill counts for this event only.

        Such events among others go back at once. Then the next pull asks for one event, and the server delivers
        redelivered events first.
        """
        suspects = [one for one in claimed if one.alone]
        others = [one for one in claimed if not one.alone]
        self._careful = self._careful - {consumer} if not suspects else self._careful | {consumer}
        back = suspects if others else suspects[1:]
        await asyncio.gather(*[self._tell(one, b"-NAK") for one in back])
        for one in suspects[:1] if not others else []:
            await self._tries.count_alone(consumer, one.position)
        return others or suspects[:1]

    async def commit(self, claimed: Claimed) -> bool:
        """When this returns, the server has confirmed the ack and does not deliver the event again. Returns False if
        the consumer was removed.
        """
        if claimed.parked:
            await self._parked.delete(_key(claimed.consumer, claimed.position))
        return await self._tell(claimed, b"+ACK")

    async def commit_many(self, items: Sequence[Claimed]) -> Sequence[bool]:
        return await asyncio.gather(*[self.commit(claimed) for claimed in items])

    def count_unwanted(self, consumer: str, number: int) -> None:
        """Does nothing: the server does not count these events."""

    async def put_back(self, claimed: Claimed, pause: float, *, tried: bool = True) -> bool:
        """The server counts every delivery. The notes count the deliveries that were not attempts."""
        if not self._holds(claimed):
            return False
        if not tried:
            await self._tries.count_untried(claimed.consumer, claimed.position, alone=claimed.alone)
        return await self._tell(claimed, b'-NAK {"delay": %d}' % int(pause * 1e9) if pause > 0 else b"-NAK")

    async def delay(self, claimed: Claimed, seconds: float, failures: int) -> bool:
        if not self._holds(claimed):
            return False
        await self._tries.count_failure(claimed, seconds, failures)
        return await self.put_back(claimed, seconds)

    async def delays(self, consumer: str, claimed: Sequence[Claimed]) -> dict[str, tuple[float, int]]:
        noted = await asyncio.gather(*[self._tries.of(consumer, one.position) for one in claimed])
        found = zip(claimed, noted, strict=True)
        return {one.position: (tries.left(), tries.failures) for one, tries in found if tries.due}

    async def forget_delays(self, claimed: Sequence[Claimed]) -> None:
        await self._tries.forget(claimed)

    async def next_attempt(self, consumer: str) -> float | None:
        """Returns None: the server does not report when the next delay ends."""
        return None

    def extend(self, client: Beats, held: Sequence[Claimed]) -> int:
        """The heartbeat, called in its thread: each lease begins again. Returns 0: the server does not report lost
        leases.
        """
        now = time.monotonic()
        self._beaten |= {(one.consumer, one.position): now for one in held}
        client.send([one.reply for one in held], b"+WPI")
        return 0

    async def _tell(self, claimed: Claimed, word: bytes) -> bool:
        """Answer a delivery. Returns False if its pull consumer no longer exists (after `leave` or a replay) or does
        not know the delivery. A server that was killed may have forgotten its last deliveries. It does not reply to
        answers to them, and delivers those events again.
        """
        try:
            await self.nats.request(claimed.reply, word)
        except LogError:
            words = claimed.reply.split(".")  # $JS.ACK.STREAM.CONSUMER.…, or $JS.ACK.DOMAIN.ACCOUNT.STREAM.CONSUMER.…
            stream, name, _, number = words[2:6] if len(words) == 9 else words[4:8]
            found = await self._info(name, stream)
            if found is None or int(number) > found["delivered"]["stream_seq"]:
                return False
            raise
        self._beaten.pop((claimed.consumer, claimed.position), None)
        return True

    # Parked events: `parked` and `discard` are in Inspection

    async def park(self, claimed: Claimed, reason: str) -> bool:
        if not self._holds(claimed):
            return False
        await self._parked.put(_key(claimed.consumer, claimed.position), parked_entry(claimed, reason, time.time()))
        return await self._tell(claimed, b"+TERM")

    async def unpark(self, consumer: str, *positions: str) -> int:
        """Publish the events on the consumer's own subject. Each stays parked until its copy has been handled."""
        keys = [_key(consumer, position) for position in positions] or [
            f"{consumer}.{number}" for number in await self._parked.keys(consumer)
        ]
        return sum(await asyncio.gather(*[self._unpark(consumer, key) for key in keys]))

    async def _unpark(self, consumer: str, key: str) -> bool:
        entry = await self._parked.get(key)
        if entry is None:
            return False
        about, _, element = entry[0].partition(b"\n")
        again = orjson.dumps({**orjson.loads(about), "again": True})
        revision = await self._parked.put(key, again + b"\n" + element)
        headers = {POSITION: f"0-{key.rpartition('.')[2]}", REVISION: str(revision)}
        await self.nats.publish(f"{self.name}.again.{consumer}", b"", headers)
        return True


def _key(consumer: str, position: str) -> str:
    return f"{consumer}.{position.partition('-')[2]}"
