"""The same log on Redis Streams (XADD, XREADGROUP, XCLAIM, XACK), which Redis has since version 5.

A stream has built in what the partitions do in Lua: positions that only grow (ids of ms and number, by Redis's clock),
consumer groups, a list of pending entries with the number of deliveries, and a read that blocks. It cannot recognize an
id that is appended twice, and XACK does not check who holds an entry; Lua scripts do that here too.

A stream is one key, so one node of a cluster holds the whole stream.

    eventlog:{stream}              stream  n: how many events are before it, e: the event; each consumer is a group
    eventlog:state:{stream}        hash    total: how many events have ever been appended
    eventlog:holders:{stream}:NAME hash    position -> "token owner": which process holds it, by which claim
    eventlog:ids:{stream}:0 and 1  hash    id of an event -> position; used in turns of REMEMBER_SECONDS
    the keys of the consumers    as in log.py

Visible differences: a pause lasts at most as long as a lease, because the idle time of an entry cannot be negative. If
the clock is turned back by N seconds, leases last N seconds longer. There is one partition.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import ResponseError

from asynckit.bytes_redis import Entry
from asynckit.redis_client import CALL_ERRORS
from asynckit.tasks import run_together

from .appender import REMEMBER_SECONDS
from .events import Claimed, Event, milliseconds, read_position
from .log import BEGINNING, END, Log
from .views import Lag, Partition, Trimmed

STREAM = "eventlog:{stream}"
STATE = "eventlog:state:{stream}"
IDS = ("eventlog:ids:{stream}:0", "eventlog:ids:{stream}:1")
TAKE_OVER_SECONDS = 0.25  # how often a consumer looks for leases and pauses that have ended
GONE_SECONDS = 60  # a process that was idle for this long and holds no event is removed from its group
STEP = 100  # entries in one step of a trim


log = logging.getLogger(__name__)


class StreamLog(Log):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._next_look: dict[str, float] = {}  # consumer -> when to look for ended leases: time.monotonic()
        self._lost: dict[str, int] = {}  # the token of the first claim whose answer was lost, until an answer arrives
        self._overtaken: dict[str, int] = {}  # as last logged
        self._stopped = asyncio.Event()

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        for consumer in self._registration.known():
            with suppress(*CALL_ERRORS):  # other processes remove this name after GONE_SECONDS
                await self._remove_names(consumer, self.owner)

    # Producers

    async def _append_many(self, items: Sequence[tuple[Event, bool]]) -> Sequence[str]:
        lines = b"".join([b"%s %s\n" % (event.id.encode(), event.to_json()) for event, _ in items])
        found = await self._scripts.run_acknowledged("stream_append", [STREAM, STATE, *IDS], REMEMBER_SECONDS, lines)
        return [position.decode() for position in found]

    async def end(self) -> str:
        try:
            last, number = _place((await self._redis.xinfo_stream(STREAM))["last-generated-id"])
        except ResponseError:  # there is no stream yet
            return "0-0"
        return f"{last}-{number + 1}"

    async def check(self) -> None:
        await self._redis.hincrby(STATE, "total", 0)

    # Consumers

    async def _begin(self, consumer: str) -> None:
        with suppress(ResponseError):  # the group exists
            await self._redis.xgroup_create(STREAM, consumer, "0", mkstream=True)
        await self._remove_names(consumer, "")

    async def leave(self, consumer: str) -> None:
        """The group stays and holds no events: a consumer that returns starts at the beginning."""
        await super().leave(consumer)
        with suppress(ResponseError):  # the group does not exist
            await self._scripts.run("stream_rewind", _keys(consumer), consumer, "0")

    async def _has_place(self, consumer: str) -> bool:
        with suppress(ResponseError):  # there is no stream yet
            return bool(await self._group(consumer))
        return False

    async def _remove_names(self, consumer: str, name: str) -> None:
        """Remove this process name, and those of dead processes, from the group."""
        await self._scripts.run("stream_leave", [STREAM], consumer, name, GONE_SECONDS * 1000)

    async def _claim(self, consumer: str, limit: int) -> list[Claimed]:
        now, token = time.monotonic(), next(self._tokens)
        lost = self._lost.get(consumer, 0)
        look = now >= self._next_look.get(consumer, 0.0) or lost > 0
        if look:
            self._next_look[consumer] = now + TAKE_OVER_SECONDS
            await self._warn_if_overtaken(consumer)
        try:
            who = (consumer, self.owner, self._lease_ms, limit, token, lost, int(look))
            alone, *words = await self._scripts.run("stream_claim", _keys(consumer), *who)
        except ResponseError:  # the group does not exist: Redis was emptied
            self._registration.forget(consumer)
            raise
        except CALL_ERRORS:
            self._lost.setdefault(consumer, token)
            raise
        self._lost.pop(consumer, None)
        if alone:  # more such events may be due: look again at once
            self._next_look.pop(consumer, None)
        until = now + self._lease_ms / 1000
        pairs = iter(words)
        return [
            Claimed(consumer, position.decode(), attempts, _element(position, members), until, bool(alone), token=token)
            for attempts, (position, members) in zip(pairs, pairs, strict=True)
        ]

    async def _warn_if_overtaken(self, consumer: str) -> None:
        overtaken = (await self._counts.of(consumer))["overtaken"]
        if overtaken > self._overtaken.setdefault(consumer, overtaken):
            lost = overtaken - self._overtaken[consumer]
            log.warning("%s was overtaken: %d events were trimmed before it handled them", consumer, lost)
            self._overtaken[consumer] = overtaken

    async def _wait(self, consumer: str, seconds: float) -> None:
        await run_together(
            self._wait_for_new(consumer, min(seconds, TAKE_OVER_SECONDS)),
            self._stopped.wait(),
        )

    async def _wait_for_new(self, consumer: str, seconds: float) -> None:
        """Block until there is a new event, without claiming it: if the connection breaks, no event is lost."""
        group = await self._group(consumer)
        await self._redis.xread({STREAM: group["last-delivered-id"]}, count=1, block=max(1, int(seconds * 1000)))

    def stop_waiting(self) -> None:
        super().stop_waiting()
        self._stopped.set()

    def _leases(self, claimed: Claimed) -> tuple[str, ...]:
        return _keys(claimed.consumer)

    def _script(self, name: str, claimed: Claimed) -> str:
        return name if claimed.parked else f"stream_{name}"

    # Replay and retention

    async def replay(self, consumer: str, start: str | float) -> None:
        self._registration.forget(consumer)  # another process may just have removed it
        await self._register(consumer)
        await self._scripts.run("stream_rewind", _keys(consumer), consumer, await self._before(start))
        await self._delays.clear(consumer)

    async def _before(self, start: str | float) -> str:
        """The id after which the group must be placed so that it reads from `start`. Raises ValueError."""
        if start == BEGINNING:
            return "0"
        if start == END:
            return "$"
        if isinstance(start, str):
            place = read_position(start)
            if not await self._redis.xrange(STREAM, start, start):
                raise ValueError(f"the log has no event at position {start}")
            return _id_before(*place)
        return _id_before(milliseconds(start), 0)

    async def trim(
        self, older_than: float | None = None, larger_than: int | None = None, *, force: bool = False
    ) -> Trimmed:
        """Deletes single events, because there is only one partition; keeps the last one. Bytes are bytes of memory."""
        events = 0
        now = await self.now()
        while len(entries := await self._redis.xrange(STREAM, count=STEP + 1)) > 1:
            bound, kept_for = entries[-1][0], None
            if larger_than is None or await self._bytes() <= larger_than:
                oldest = (now - older_than) * 1000 if older_than is not None else 0
                bound = next((position for position, _ in entries if _place(position)[0] > oldest), bound)
            if not force:
                bound, kept_for = await self._keep_undone(bound)
            trimmed = await self._trim_before(bound)
            events += trimmed
            if trimmed < len(entries) - 1:
                return Trimmed(events, 0, kept_for)
        return Trimmed(events, 0, None)

    async def _keep_undone(self, bound: bytes) -> tuple[bytes, str | None]:
        """`bound`, or the first event that a consumer has not done if that is before it; and this consumer."""
        kept_for = None
        for consumer in await self._readers():
            milliseconds, number = _place((await self._group(consumer))["last-delivered-id"])
            floor = await self._first_pending(consumer) or f"{milliseconds}-{number + 1}".encode()
            if _place(floor) < _place(bound):
                bound, kept_for = floor, consumer
        return bound, kept_for

    async def _trim_before(self, bound: bytes) -> int:
        """Count first, then delete: an overtaken consumer must learn of its loss even if this process is killed."""
        for consumer in await self._readers():
            before = f"({bound.decode()}"
            undone = await self._redis.xpending_range(STREAM, consumer, "-", before, 1_000_000)
            if undone:
                gone = [entry["message_id"] for entry in undone]
                await self._redis.hdel(_keys(consumer)[1], *gone)
                await self._redis.xack(STREAM, consumer, *gone)
            following, first = await self._next(consumer), (await self._redis.xrange(STREAM, bound, count=1))[0]
            lost = len(undone) + max(0, _number(first) - (_number(following) if following else _number(first)))
            self._counts.add(consumer, "overtaken", lost)
        await self._counts.write()
        return int(await self._redis.xtrim(STREAM, minid=bound, approximate=False))

    # Inspection

    async def partitions(self, newest: int | None = None) -> list[Partition]:
        length = await self._redis.xlen(STREAM)
        if not length:
            return []
        [first], [last] = await self._redis.xrange(STREAM, count=1), await self._redis.xrevrange(STREAM, count=1)
        opened, latest = (_place(entry[0])[0] / 1000 for entry in (first, last))
        return [Partition("stream", opened, latest, _number(first), length, await self._bytes(), sealed=False)]

    async def _lag(self, consumer: str) -> Lag:
        total = int(await self._redis.hget(STATE, "total") or 0)
        group, first = await self._group(consumer), await self._first_pending(consumer)
        following = await self._next(consumer)
        here = first or (following and following[0]) or group["last-delivered-id"]
        age = await self.now() - _place(here)[0] / 1000 if first or following else 0.0
        waiting = total - _number(following) if following else 0
        figures = await self._figures(consumer)
        return Lag(here.decode(), waiting, group["pending"], oldest_seconds=max(0.0, age), **figures)

    async def _first_pending(self, consumer: str) -> bytes | None:
        """Avoids the summary form of XPENDING, which goes through all process names of the group."""
        found = await self._redis.xpending_range(STREAM, consumer, "-", "+", 1)
        return found[0]["message_id"] if found else None

    async def _next(self, consumer: str) -> Entry | None:
        """The first entry that this group has not claimed."""
        last = (await self._group(consumer))["last-delivered-id"]
        found: list[Entry] = await self._redis.xrange(STREAM, f"({last.decode()}", count=1)
        return found[0] if found else None

    async def _group(self, consumer: str) -> dict[str, Any]:
        """The group as XINFO GROUPS describes it. Raises ResponseError if it does not exist."""
        for group in await self._redis.xinfo_groups(STREAM):
            if group["name"] == consumer.encode():
                return dict(group)
        raise ResponseError(f"no group {consumer}")

    async def _bytes(self) -> int:
        return int(await self._redis.memory_usage(STREAM) or 0)


def _keys(consumer: str) -> tuple[str, str]:
    return STREAM, f"eventlog:holders:{{stream}}:{consumer}"


def _element(position: bytes, members: Sequence[bytes]) -> bytes:
    """The entry in the format of a partition's list."""
    stamp, _, _ = position.partition(b"-")
    return b"%s %s" % (stamp, dict(zip(members[::2], members[1::2], strict=True)).get(b"e", b""))


def _number(entry: Entry) -> int:
    """How many events are before it."""
    text = entry[1].get(b"n", b"")
    return int(text) if text.isdigit() else 0


def _place(position: bytes) -> tuple[int, int]:
    return read_position(position.decode())


def _id_before(milliseconds: int, number: int) -> str:
    if number:
        return f"{milliseconds}-{number - 1}"
    return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds > 0 else "0"
