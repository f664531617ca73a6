"""A worker with very many queues or slots: few connections, small calls, and every job is found."""

import asyncio
import gc
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

import resque
from resque import claiming, claims, notifier, registration, slots, watcher
from tests.support.programs import a_name, until
from tests.support.resque import Definition, Resque

QUEUES = [f"q{number}" for number in range(1000)]
EARLY, LATE = QUEUES[1], QUEUES[900]
MOST_CONNECTIONS = 16


class Many:
    """Connections with a name of their own, and the jobs that a worker with these connections has done."""

    def __init__(self, r: Resque, user: str = "") -> None:
        self.r = r
        self.name = a_name()
        self.url = f"redis://{user}127.0.0.1:{r.valkey.port}/0?client_name={self.name}"
        self.done: list[Any] = []

    async def note(self, number: Any) -> None:
        self.done.append(number)

    def push(self, queue: str, number: Any) -> None:
        """As Ruby and Node do."""
        self.r.get("RPUSH", self.r.keys.queue(queue), json.dumps({"class": "note", "args": [number]}))

    def connections(self) -> list[int]:
        return [int(client["id"]) for client in self.r.valkey.client.client_list() if client["name"] == self.name]

    async def run(self, queue: str, number: Any) -> None:
        self.push(queue, number)
        await until(lambda: number in self.done, f"the job in {queue} is done")

    def working(self, connections: Any) -> Any:
        definitions = {"note": Definition(self.note)}
        return self.r.working(QUEUES, connections=connections, definitions=definitions, scaling=resque.Scaling(1, 1))

    async def idle(self) -> None:
        await until(lambda: self.r.events("Polled") and self.r.events("Polled")[-1].jobs == 0)


def watcher_of(worker: Any) -> watcher.Watcher:
    found = worker._notifier._watcher
    assert isinstance(found, watcher.Watcher)
    return found


async def test_a_worker_with_a_thousand_queues_has_few_connections_and_finds_each_job(r: Resque) -> None:
    many = Many(r)
    async with resque.open_connections(many.url) as connections, many.working(connections):
        for number, queue in enumerate((EARLY, LATE, QUEUES[0], QUEUES[notifier.MOST_WAITING], QUEUES[-1], LATE)):
            await many.idle()
            await many.run(queue, number)
        assert 0 < len(many.connections()) <= MOST_CONNECTIONS


async def test_of_a_thousand_queues_the_earlier_goes_first(r: Resque) -> None:
    many = Many(r)
    order = [QUEUES[-1], LATE, QUEUES[31], QUEUES[32], EARLY]
    for queue in order:
        many.push(queue, queue)
    async with resque.open_connections(many.url) as connections, many.working(connections):
        await until(lambda: len(many.done) == len(order))
    assert many.done == sorted(order, key=QUEUES.index)


async def test_redis_reports_each_push_to_a_watched_queue(r: Resque, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second push to the same queue, too: nothing here looks again by itself."""
    monkeypatch.setattr(watcher, "CHECK_SECONDS", 600.0)
    monkeypatch.setattr(claiming, "IDLE_ASK_SECONDS", 600.0)
    many = Many(r)
    async with resque.open_connections(many.url) as connections, many.working(connections) as worker:
        await until(lambda: watcher_of(worker).tracked)
        for number, queue in enumerate((LATE, LATE, QUEUES[-1], LATE)):
            await many.run(queue, number)


async def test_a_watching_connection_that_was_cut_is_replaced(r: Resque) -> None:
    many = Many(r)
    async with resque.open_connections(many.url) as connections, many.working(connections):
        for number in range(3):
            await many.idle()
            await many.run(LATE, number)
            for connection in many.connections():
                r.get("CLIENT", "KILL", "ID", connection)
        await many.run(LATE, "last")
        await many.run(EARLY, "the very last")


@pytest.fixture
def limited_user(r: Resque) -> Iterator[str]:
    """A user who may do everything except what the watcher asks for."""
    name = a_name()
    r.get("ACL", "SETUSER", name, "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
    yield f"{name}:secret@"
    r.get("ACL", "DELUSER", name)


async def test_a_watcher_that_gets_no_reports_polls(r: Resque, limited_user: str) -> None:
    many = Many(r, limited_user)
    async with resque.open_connections(many.url) as connections, many.working(connections) as worker:
        for number, queue in enumerate((LATE, EARLY, LATE)):
            await many.idle()
            await many.run(queue, number)
        assert not watcher_of(worker).tracked


async def test_a_paused_queue_among_a_thousand_stays_paused(r: Resque) -> None:
    many = Many(r)
    await r.queue.pause(QUEUES[500], "maintenance", None)
    many.push(QUEUES[500], "paused")
    many.push(LATE, "late")
    async with resque.open_connections(many.url) as connections, many.working(connections):
        await until(lambda: many.done == ["late"])
        await many.idle()
        assert (len(r.waiting(QUEUES[500])), many.done) == (1, ["late"])
        await r.queue.resume(QUEUES[500])
        await until(lambda: many.done == ["late", "paused"])


@pytest.mark.timeout(120)
async def test_ten_thousand_slots_run_ten_thousand_jobs(r: Resque) -> None:
    """In calls of a bounded size: Lua's stack, for example, has no room for ten thousand ids."""
    count, running, gate = 10_000, 0, asyncio.Event()

    async def wait(_: int) -> None:
        nonlocal running
        running += 1
        await gate.wait()

    jobs = [json.dumps({"class": "wait", "args": [number]}) for number in range(count)]
    r.get("RPUSH", r.keys.queue("q"), *jobs)
    definitions, scaling = {"wait": Definition(wait)}, resque.Scaling(count, count)
    async with r.working(definitions=definitions, scaling=scaling, lease_seconds=15.0) as worker:
        await until(lambda: running == count, "all jobs run", 60)
        assert max(event.jobs for event in r.events("Polled")) <= slots.CLAIM_MOST
        assert (worker.busy, r.waiting()) == (count, [])
        assert gc.get_freeze_count() > 0, "no collection has to look at all these jobs"
        *_, latest = r.get("ZRANGE", r.keys.leases, -1, -1, "WITHSCORES")
        await until(lambda: r.get("ZCOUNT", r.keys.leases, f"({latest}", "+inf") == count, "all leases are renewed")
        gate.set()
        await until(lambda: len(r.events("Succeeded")) == count, "all jobs are done", 60)
    assert (r.failed(), r.waiting(), gc.get_freeze_count()) == ([], [], 0)
    assert [key for key in r.all_keys() if key.startswith("worker")][:5] == []


async def test_a_heartbeat_that_failed_continues_with_the_slots_that_it_left_out(
    r: Resque, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, in a slow Redis, the last of many slots would never be renewed."""
    monkeypatch.setattr(registration, "AT_ONCE", 1)
    own = registration.Registration(r.scripts, r.connections.thread, r.keys, ["q"], 60.0, lambda: None)
    await own.add(3)
    beats: list[int] = []

    def beat(some: Sequence[claims.Slot]) -> None:
        beats.append(some[0].number)
        if len(beats) == 2:
            raise RedisTimeoutError("no answer")

    monkeypatch.setattr(own, "_send_beat", beat)
    with pytest.raises(RedisTimeoutError):
        own._send_beats()
    own._send_beats()
    own._send_beats()
    assert beats == [1, 2, 2, 3, 1, 1, 2, 3]


async def test_slots_whose_registration_got_no_answer_are_added_later(
    r: Resque, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "AT_ONCE", 2)
    own = registration.Registration(r.scripts, r.connections.thread, r.keys, ["q"], 60.0, lambda: None)
    register, calls = own._register, 0

    async def second_fails(some: Sequence[claims.Slot]) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RedisTimeoutError("no answer")
        await register(some)

    monkeypatch.setattr(own, "_register", second_fails)
    assert [slot.number for slot in await own.add(6)] == [1, 2]
    assert list(own.slots) == [1, 2]
    assert len(await own.add(4)) == 4
    assert len(own.slots) == r.get("SCARD", r.keys.workers) == 6
