"""The log on JetStream: the progress of its consumers, replay, retention and parked events, by the server's own
figures.
"""

import asyncio
import logging
import re
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson

from .errors import NotTaken
from .events import read_position
from .nats_bucket import Bucket
from .nats_client import NO_CONSUMER, NO_MESSAGE, Nats, Refused
from .parked import Parked
from .views import Lag, Partition, Trimmed

NAME = re.compile(r"[a-z0-9_-]{1,40}")

log = logging.getLogger(__name__)


class Inspection:
    def __init__(self, nats: Nats, lease_seconds: float, name: str) -> None:
        self.owner = uuid4().hex
        self.limits: tuple[float, int] | None = None
        self.nats = nats
        self.name = name
        self._lease_seconds = lease_seconds
        self._parked, self._notes = Bucket(nats, f"{name}_parked"), Bucket(nats, f"{name}_notes")
        self._registered: dict[str, str] = {}  # consumer -> the name of its pull consumer

    # The consumers

    async def _register(self, consumer: str) -> str:
        """The name of its pull consumer, which is created if it does not exist. Raises ValueError.

        Each replay creates a pull consumer with a new name, so that an earlier ack has no effect.
        """
        _check_name(consumer)
        if consumer in self._registered:
            return self._registered[consumer]
        name, start = await self._place(consumer)
        found = await self._info(name)
        if found is None or found["config"]["ack_wait"] != self._ack_wait:
            begin = {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
            await self._create(self.name, name, found["config"] if found else begin)
        await self._create(f"{self.name}_again", consumer, {"filter_subject": f"{self.name}.again.{consumer}"})
        for other in await self._names():
            if other != name and _base(other) == consumer:
                await self._delete(other)
        self._registered[consumer] = name
        return name

    @property
    def _ack_wait(self) -> int:
        return int(self._lease_seconds * 1e9)

    async def _place(self, consumer: str) -> tuple[str, int]:
        """The name of its pull consumer, and the number of the event at which it begins."""
        replay = await self._notes.get(f"start.{consumer}")
        return (f"{consumer}+{replay[1]}", int(replay[0])) if replay else (consumer, 1)

    async def _create(self, stream: str, name: str, config: dict[str, Any]) -> None:
        kept = {"durable_name": name, "ack_policy": "explicit", "ack_wait": self._ack_wait}
        unlimited = {"max_deliver": -1, "max_ack_pending": -1}  # our consumers count attempts themselves
        config = config | kept | unlimited
        await self.nats.api(f"CONSUMER.CREATE.{stream}.{name}", stream_name=stream, config=config)

    async def _info(self, name: str, stream: str = "") -> dict[str, Any] | None:
        try:
            return await self.nats.api(f"CONSUMER.INFO.{stream or self.name}.{name}")
        except Refused as error:
            if error.code == NO_CONSUMER:
                return None
            raise

    async def _delete(self, name: str) -> None:
        try:
            await self.nats.api(f"CONSUMER.DELETE.{self.name}.{name}")
        except Refused as error:
            if error.code != NO_CONSUMER:
                raise

    async def _names(self) -> list[str]:
        found = (await self.nats.api(f"CONSUMER.LIST.{self.name}"))["consumers"] or []
        return [one["name"] for one in found if one["config"].get("durable_name")]

    async def consumers(self) -> list[str]:
        return sorted({_base(name) for name in await self._names()})

    async def leave(self, consumer: str) -> None:
        """Remove the consumer: the log keeps nothing for it. If it is added again, it starts at the beginning."""
        self._registered.pop(consumer, None)
        await self._notes.delete(f"start.{consumer}")
        for name in await self._names():
            if _base(name) == consumer:
                await self._delete(name)

    async def replay(self, consumer: str, start: str | float) -> None:
        """Store the number of the event at which it begins, then create a pull consumer that begins there and delete
        the previous one. Every process reads the stored number, so all of them agree on the beginning, even if one of
        them dies.
        """
        _check_name(consumer)
        await self._notes.put(f"start.{consumer}", b"%d" % await self._number_of(start))
        await self._notes.delete(f"tries.{consumer}.*")
        self._registered.pop(consumer, None)
        await self._register(consumer)

    async def _number_of(self, start: str | float) -> int:
        state = await self._state()
        match start:
            case "beginning":
                return int(state["first_seq"])
            case "end":
                return int(state["last_seq"]) + 1
            case str():
                first, number = read_position(start)
                if first or not state["first_seq"] <= number <= state["last_seq"]:
                    raise ValueError(f"no event of the log has the position {start}")
                return number
            case _:
                return await self._first_since(start)

    async def _first_since(self, moment: float) -> int:
        """The number of the first event that was appended at this time (unix seconds) or later."""
        name = f"look-{uuid4().hex}"
        since = datetime.fromtimestamp(moment, UTC).isoformat()
        config = {"name": name, "deliver_policy": "by_start_time", "opt_start_time": since, "ack_policy": "none"}
        create = f"CONSUMER.CREATE.{self.name}.{name}"
        found = await self.nats.api(
            create, stream_name=self.name, config={**config, "inactive_threshold": 10**9, "mem_storage": True}
        )
        await self.nats.api(f"CONSUMER.DELETE.{self.name}.{name}")
        return int((await self._state())["last_seq"]) - int(found["num_pending"]) + 1

    # What the log contains

    async def now(self) -> float:
        return time.time()

    async def end(self) -> str:
        return f"0-{(await self._state())['last_seq'] + 1}"

    async def partitions(self, newest: int | None = None) -> list[Partition]:
        """The stream is one partition."""
        state = await self._state()
        if not state["messages"]:
            return []
        opened, last = (datetime.fromisoformat(state[name]).timestamp() for name in ("first_ts", "last_ts"))
        return [
            Partition("stream", opened, last, state["first_seq"] - 1, state["messages"], state["bytes"], sealed=False)
        ]

    async def lag(self, consumer: str) -> Lag:
        """`handled` counts from the first event of the log; a replay sets it back. Raises ValueError."""
        _check_name(consumer)
        name, start = await self._place(consumer)
        found, parked = await self._info(name), len(await self._parked.keys(consumer))
        if found is None:
            state = await self._state()
            floor = max(start, state["first_seq"]) - 1
            waiting, pending, done = state["last_seq"] - floor, 0, 0
        else:
            floor, waiting, pending = found["ack_floor"]["stream_seq"], found["num_pending"], found["num_ack_pending"]
            done = max(0, found["delivered"]["stream_seq"] - pending - parked)
        oldest = await self._appended(floor + 1) if waiting or pending else None
        age = max(0.0, time.time() - oldest) if oldest else 0.0
        return Lag(
            f"0-{floor + 1}", waiting, pending, parked, age, handled=done, given_up=parked, retried=None, overtaken=None
        )

    async def _appended(self, number: int) -> float | None:
        """When this event was appended, or the next one if this one was deleted (unix seconds)."""
        try:
            found = await self.nats.api(f"STREAM.MSG.GET.{self.name}", seq=number, next_by_subj=f"{self.name}.events")
        except Refused as error:
            if error.code == NO_MESSAGE:
                return None
            raise
        return datetime.fromisoformat(found["message"]["time"]).timestamp()

    async def _check_limits(self) -> None:
        """Raises NotTaken if one more event would exceed the limits that the operator of the stream has set."""
        found = await self.nats.api(f"STREAM.INFO.{self.name}")
        limits, state = found["config"], found["state"]
        one = state["bytes"] / state["messages"] if state["messages"] else 0
        if 0 < limits["max_bytes"] < state["bytes"] + one or 0 < limits["max_msgs"] <= state["messages"]:
            raise NotTaken(f"NATS: the stream {self.name} has reached its limit")

    async def _state(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.nats.api(f"STREAM.INFO.{self.name}"))["state"]
        return found

    # Retention

    async def trim(
        self, older_than: float | None = None, larger_than: int | None = None, *, force: bool = False
    ) -> Trimmed:
        """As in log.Log. For a limit in bytes it assumes that all events have the same size, so it may take several
        steps.
        """
        trimmed = await self._trim(older_than, larger_than, force)
        events = trimmed.events
        while trimmed.events and larger_than is not None:
            trimmed = await self._trim(None, larger_than, force)
            events += trimmed.events
        return Trimmed(events, 0, trimmed.kept_for)

    async def _trim(self, older_than: float | None, larger_than: int | None, force: bool) -> Trimmed:
        state = await self._state()
        bound = int(state["first_seq"])
        if older_than is not None:
            bound = max(bound, await self._first_since(time.time() - older_than))
        if larger_than is not None and state["bytes"] > larger_than:
            bound = max(bound, state["last_seq"] + 1 - int(state["messages"] * larger_than / state["bytes"]))
        kept_for = None
        for name in await self._names():
            consumer, found = _base(name), await self._info(name)
            floor = found["ack_floor"]["stream_seq"] + 1 if found else bound
            if floor >= bound:
                continue
            if force:
                log.warning("%s was overtaken: %d events were trimmed before it handled them", consumer, bound - floor)
            else:
                bound, kept_for = floor, consumer
        if bound <= state["first_seq"]:
            return Trimmed(0, 0, kept_for)
        purged = await self.nats.api(f"STREAM.PURGE.{self.name}", seq=bound)
        return Trimmed(int(purged["purged"]), 0, kept_for)

    # Parked events

    async def parked(self, consumer: str, limit: int = 1000) -> list[Parked]:
        """The newest events of the log first."""
        numbers = sorted(await self._parked.keys(consumer), key=lambda number: -int(number))[:limit]
        found = await asyncio.gather(*[self._parked.get(f"{consumer}.{number}") for number in numbers])
        return [_parked(f"0-{number}", one[0]) for number, one in zip(numbers, found, strict=True) if one]

    async def discard(self, consumer: str, *positions: str) -> int:
        if not positions:
            return await self._parked.delete(f"{consumer}.*")
        keys = [f"{consumer}.{position.partition('-')[2]}" for position in positions]
        return sum(await asyncio.gather(*[self._parked.delete(key) for key in keys]))


def _base(name: str) -> str:
    """The consumer to which a pull consumer belongs."""
    return name.partition("+")[0]


def _check_name(consumer: str) -> None:
    if not NAME.fullmatch(consumer):
        raise ValueError("a consumer's name must be 1 to 40 lowercase letters, digits, _ or -")


def _parked(position: str, entry: bytes) -> Parked:
    about, _, element = entry.partition(b"\n")
    found = orjson.loads(about)
    return Parked(position, found["reason"], found["attempts"], found["at"], element, bool(found.get("again")))
