"""Every background task of strategy 5 survives every error of Redis, at every call."""

import json
import time
from typing import Any

import pytest

import resque
from asynckit.tasks import end_tasks, keep_running
from resque import housekeeping, schedules
from resque import slots as slots_module
from tests.support.failing_calls import FAILURES, failing_calls
from tests.support.programs import a_name, until
from tests.support.resque import Definition, Resque

FUNCTIONS = {
    *(f"resque/claims.py {name}" for name in ("take", "_acknowledge_many", "give_up", "retry", "release")),
    *(f"resque/housekeeping.py {name}" for name in ("reap", "_unlock", "promote", "set_aside", "forget_counts")),
    *(f"resque/housekeeping.py {name}" for name in ("clean_other_programs", "_clean")),
    *(f"resque/registration.py {name}" for name in ("_register", "_send_beat")),
    *(f"resque/schedules.py {name}" for name in ("all", "fire", "_last_enqueued", "_step", "_forget")),
    "resque/notifier.py _wait_for",
}
RARE = ("_unregister",)  # of single slots; the other test calls it


class Work:
    """Gives a worker and a scheduler something to do at every call site."""

    def __init__(self, r: Resque) -> None:
        self.r = r
        self.done: set[Any] = set()
        self.seen: list[Any] = []
        self.waited: set[Any] = set()

    async def note(self, number: Any) -> None:
        self.done.add(number)

    async def first_fail(self, number: Any) -> None:
        if number not in self.seen:
            self.seen.append(number)
            raise ValueError("the first attempt")
        self.done.add(number)

    async def fail(self, argument: Any) -> None:
        raise resque.Permanent("for good")

    async def wait(self, number: Any) -> None:
        if number not in self.waited:
            self.waited.add(number)
            raise resque.WaitAndRepeat("not yet")
        self.done.add(number)

    def definitions(self) -> dict[str, Definition]:
        return {
            "note": Definition(self.note),
            "first_fail": Definition(self.first_fail, schedule=lambda attempt: 0.0),
            "fail": Definition(self.fail, unique=lambda argument: argument["id"]),
            "wait": Definition(self.wait),
        }

    async def feed(self, number: int) -> None:
        """One of everything."""
        r, keys = self.r, self.r.keys
        for name in ("note", "first_fail", "wait"):
            r.get("RPUSH", keys.queue("q"), json.dumps({"class": name, "args": [number]}))
        r.get("RPUSH", keys.queue("q"), "no job", json.dumps({"class": "fail", "args": [{"id": str(number)}]}))
        dead = f"gone:{number}:none"
        r.get("SADD", keys.workers, dead, f"ruby:{number}:q")
        r.get("ZADD", keys.leases, 1, dead)
        record = '{"token":"t","queue":"q","payload":{"class":"fail","args":[{"id":"dead %d"}]}}'
        r.get("SET", keys.worker(dead), record % number)
        r.get("HSET", keys.crashes, f"dead {number}", 100)
        r.get("HSET", keys.heartbeats, f"ruby:{number}:q", "2020-01-01T00:00:00+00:00")
        for name in ("tick", f"tick {number}"):
            r.get("HSET", keys.cron_schedules, name, json.dumps({"every": "1s", "queue": "none", "class": "tick"}))
        r.get("HDEL", keys.cron_schedules, f"tick {number - 1}")
        if number % 4 == 0:  # another program removes our slots as dead: they register again
            r.get("SREM", keys.workers, *[slot for slot in r.get("SMEMBERS", keys.workers) if slot.endswith(":q")])

    async def is_alive(self) -> None:
        """Without errors, the worker and the scheduler do all that they did before."""
        r, keys, name = self.r, self.r.keys, a_name()
        await r.queue.enqueue("q", "note", [name])
        await r.queue.enqueue("q", "first_fail", [f"{name} again"])
        await until(lambda: {name, f"{name} again"} <= self.done, "jobs are run and retried")
        dead = f"gone:{name}:none"
        r.get("SADD", keys.workers, dead)
        r.get("ZADD", keys.leases, 1, dead)
        await until(lambda: not r.get("SISMEMBER", keys.workers, dead), "dead workers are cleaned")
        fired = r.get("LLEN", keys.queue("none"))
        await until(lambda: r.get("LLEN", keys.queue("none")) > fired, "schedules fire")
        slot = next(iter(await r.observer.workers()))
        await until(lambda: (r.get("ZSCORE", keys.leases, slot.id) or 0) > time.time() * 1000, "leases are renewed")


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "EVERY_SECONDS", 0.02)
    monkeypatch.setattr(housekeeping, "OTHERS_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(schedules, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(slots_module, "LOOK_SECONDS", 0.02)


@pytest.mark.timeout(180)
async def test_every_task_survives_every_error_at_every_call(r: Resque, monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)
    work = Work(r)
    with failing_calls(monkeypatch, "_register", "_send_beat") as calls:
        calls.armed = True
        async with r.working(definitions=work.definitions(), scaling=resque.Scaling(1, 3, 10.0), lease_seconds=3.0):
            cron = resque.Schedules(r.connections.commands, r.scripts, r.keys)
            tasks = [keep_running(cron.run, "schedules")]
            number = 0

            async def all_have_failed() -> bool:
                nonlocal number
                number += 1
                await work.feed(number)
                await until(lambda: not r.waiting(), "the worker goes on")
                return calls.functions() >= FUNCTIONS and not calls.left(*RARE)

            await until(all_have_failed, "each error has been raised at each call", 120)
            calls.armed = False
            await work.is_alive()
            await end_tasks(tasks)
    assert calls.functions() >= FUNCTIONS


@pytest.mark.parametrize(("error", "after"), FAILURES)
async def test_a_worker_stops_whatever_redis_answers(
    r: Resque, monkeypatch: pytest.MonkeyPatch, error: type[Exception], after: bool
) -> None:
    work = Work(r)
    with failing_calls(monkeypatch) as calls:
        monkeypatch.setattr(calls, "failure", lambda: (error, after) if calls.armed else None)
        async with r.working(definitions=work.definitions()):
            calls.armed = True
        assert r.events("Ended")
