"""Keys in Redis that other programs read, and data that they write."""

import json
import re
import socket
import time
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from resque import claims, dates, registration, wire
from resque.delayed import DelayedJobs
from tests.support.programs import until
from tests.support.resque import NASTY, RAW, Resque

# Our keys in Redis.


async def test_a_delayed_job_is_in_the_keys_that_all_programs_read(r: Resque) -> None:
    second = int(time.time()) + 1000
    await r.queue.enqueue_at(second - 0.5, "q", "note", [{"to": "x", "id": "7"}])
    raw = '{"class":"note","queue":"q","args":[{"to":"x","id":"7"}]}'
    assert r.get("LRANGE", r.keys.delayed(second), 0, -1) == [raw]
    assert r.get("SMEMBERS", f"{r.namespace}:timestamps:{raw}") == {f"delayed:{second}"}
    assert r.get("ZRANGE", r.keys.schedule, 0, -1, "WITHSCORES") == [str(second), str(second)]


async def test_a_worker_is_registered_for_ruby_and_node_and_its_heartbeats_come_first(r: Resque) -> None:
    client: Any = r.valkey.client
    with client.monitor() as monitor:
        [slot] = await r.slots(queues=["a", "b"])
        written: list[tuple[str, str]] = []
        while not written or written[-1][0] != "SADD":
            words = str(monitor.next_command()["command"]).split()
            if words[0] in ("HSET", "SET", "SADD") and words[1].startswith(r.namespace):
                written.append((words[0], words[1].removeprefix(f"{r.namespace}:")))
    *signs, (_, last) = written
    assert last == "workers"
    assert set(signs) == {
        ("HSET", "workers:heartbeat"),
        ("SET", f"worker:{slot.id}:started"),
        ("SET", f"worker:ping:{slot.name}"),
    }
    assert r.get("SMEMBERS", r.keys.workers) == {slot.id}
    now, heartbeat = time.time(), r.get("HGET", r.keys.heartbeats, slot.id)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", heartbeat)
    started = r.get("GET", r.keys.started(slot.id))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000", started)
    ping = json.loads(r.get("GET", r.keys.ping(slot.name)))
    assert (list(ping), ping["name"], ping["queues"]) == (["time", "name", "queues"], slot.name, "a,b")
    assert all(abs((dates.moment_of(moment) or 0) - now) < 60 for moment in (heartbeat, started, ping["time"]))


async def test_no_ruby_worker_takes_our_worker_for_dead(r: Resque) -> None:
    """Ruby checks the processes of all workers that have its own host name."""
    first, second = await r.slots(2, queues=["a", "b"])
    [other] = await r.slots(queues=["a", "b"])
    for slot in (first, second, other):
        host, pid, queues = slot.id.split(":")
        assert re.fullmatch(r"[A-Za-z0-9.-]+", host)
        assert host != socket.gethostname()
        assert re.fullmatch(r"\d+\+\d+", pid)
        assert (queues, slot.name) == ("a,b", f"{host}:{pid}")
    assert first.name.split(":")[0] == second.name.split(":")[0] != other.name.split(":")[0], (
        "a name is never used twice"
    )


async def test_the_record_of_a_running_job_holds_it_unchanged(r: Resque) -> None:
    raw = '{"class":"note","args":[[],{},12345678901234567,1.0,"é"],"more":1}'
    r.get("RPUSH", r.keys.queue('a/"b"'), raw)
    [slot] = await r.slots(queues=['a/"b"'])
    [claim] = (await r.claims('a/"b"').take([slot], busy=False)).claims
    record = r.get("GET", r.keys.worker(slot.id))
    assert record.endswith(f',"payload":{raw}}}')
    members = json.loads(record)
    assert list(members) == ["token", "queue", "run_at", "worker", "payload"]
    assert (members["token"], members["queue"], members["worker"]) == (claim.token, 'a/"b"', slot.name)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", members["run_at"])


async def test_an_unregistered_worker_leaves_no_keys(r: Resque) -> None:
    here = registration.Registration(r.scripts, r.connections.thread, r.keys, ["q"], 5.0, lambda: None)
    [slot] = await here.add(1)
    r.get("RPUSH", r.keys.queue("q"), RAW)
    [claim] = (await r.claims().take([slot], busy=False)).claims
    assert await r.claims().acknowledge(claim)
    assert any(slot.name in key for key in r.all_keys())
    await here.remove([slot])
    assert [key for key in r.all_keys() if slot.name in key] == []
    for command, key in (("SMEMBERS", r.keys.workers), ("HGETALL", r.keys.heartbeats)):
        assert not r.get(command, key)
    assert r.get("ZCARD", r.keys.leases) == 0


# Data that other programs write, and keys that they remove.


async def test_invalid_data_in_any_key_affects_neither_the_observer_nor_the_housekeeping(r: Resque) -> None:
    for member in ("", "one", "one:two", "one:two:", "h:1:q:with:colons", b"\xff:1:q"):
        r.get("SADD", r.keys.workers, member)
        r.get("HSET", r.keys.heartbeats, member, "not a time")
    r.get("SET", r.keys.ping("h:1"), "[]")
    r.get("SET", r.keys.worker("h:1:q:with:colons"), '{"payload":null}')
    r.get("HSET", r.keys.key("delayed:last_enqueued_at"), "nightly", "2026-11-21 07:49:51 +0000")
    r.get(
        "RPUSH",
        r.keys.delayed(1),
        "not JSON",
        '{"class":"note","args":[]}',
        '{"class":"note","queue":"","args":[]}',
        RAW,
    )
    r.get("ZADD", r.keys.schedule, 1, 1)
    housekeeping = r.housekeeping(stuck_seconds=0.0)
    assert await housekeeping.clean_other_programs() == 0
    assert await housekeeping.reap() == 0
    assert await housekeeping.promote() == 4
    assert await housekeeping.set_aside() == 3
    assert r.waiting() == [RAW]
    not_json, no_queue, empty_queue = r.failed()
    assert (not_json["raw"], not_json["error"][:9]) == ("not JSON", "not JSON:")
    assert no_queue["error"] == empty_queue["error"] == "it names no queue"
    assert no_queue["queue"] == no_queue["payload"]["queue"] == "Unreadable", "Ruby enqueues nothing without a queue"
    assert len(await r.observer.workers()) == 6
    assert [state.alive for state in await r.observer.workers()] == [False] * 6
    assert await DelayedJobs(r.queue).count() == (0, False)


async def test_a_slot_that_another_program_removed_gets_no_more_jobs(r: Resque) -> None:
    slots = await r.slots(2)
    r.get("RPUSH", r.keys.queue("q"), RAW)
    r.get("SREM", r.keys.workers, slots[1].id)  # as Node's forceClean does
    with pytest.raises(claims.LeaseLost):
        await r.claims().take(slots, busy=False)
    assert r.waiting() == [RAW]


async def test_a_job_that_another_program_has_filed_is_not_put_back_when_its_worker_unregisters(r: Resque) -> None:
    here = registration.Registration(r.scripts, r.connections.thread, r.keys, ["q"], 0.05, lambda: None)
    [slot] = await here.add(1)
    r.get("RPUSH", r.keys.queue("q"), RAW)
    [claim] = (await r.claims().take([slot], busy=False)).claims
    r.get("SREM", r.keys.workers, slot.id)
    filed = json.dumps({"worker": slot.name, "queue": "q", "payload": json.loads(RAW)}, separators=(",", ":"))
    r.get("RPUSH", r.keys.failed, filed)
    assert not await r.claims().release(claim)
    await here.remove([slot])
    await until(r.housekeeping().reap, "the lease has ended")
    assert (r.waiting(), r.failed()) == ([], [json.loads(filed)])
    assert [key for key in r.all_keys() if slot.name in key] == []


async def test_the_job_of_a_worker_that_another_program_removed_goes_to_the_failed_list(r: Resque) -> None:
    [slot] = await r.slots(lease_seconds=0.05, queues=["a/b"])
    raw = wire.make_job("a/b", "note", [{"text": NASTY, "id": "7"}]).raw
    r.get("RPUSH", r.keys.queue("a/b"), raw)
    await r.claims("a/b").take([slot], busy=False)
    r.get("SREM", r.keys.workers, slot.id)
    await until(r.housekeeping().reap, "the lease has ended")
    [record] = r.get("LRANGE", r.keys.failed, 0, -1)
    assert re.fullmatch(
        r'\{"failed_at":"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d UTC","payload":'
        + re.escape(raw)
        + r',"exception":"WorkerLost","error":"[^"]+","backtrace":\[\],"worker":"[^"]+:a/b","queue":"a/b"\}',
        record,
    )
    assert r.waiting("a/b") == []


async def test_we_do_not_clean_workers_of_node_while_node_leads(r: Resque) -> None:
    r.get("SADD", r.keys.workers, "node:1:q")
    r.get("SET", r.keys.ping("node:1"), '{"time":1,"name":"node:1","queues":"q"}')
    r.get("SET", r.keys.worker("node:1:q"), f'{{"queue":"q","payload":{RAW},"worker":"node:1","run_at":"x"}}')
    r.get("SET", r.keys.node_lock, "node:2")
    assert await r.housekeeping(stuck_seconds=1.0).clean_other_programs() == 0
    r.get("DEL", r.keys.node_lock)
    assert await r.housekeeping(stuck_seconds=1.0).clean_other_programs() == 1
    [record] = r.failed()
    assert record["payload"] == json.loads(RAW)
    assert record["backtrace"][1] == "queue#forceCleanWorker", "what Node's retryStuckJobs looks for"
    assert r.get("SMEMBERS", r.keys.workers) == set()


async def test_a_worker_registers_again_even_if_redis_does_not_answer_at_first(
    r: Resque, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = registration.Registration(r.scripts, r.connections.thread, r.keys, ["q"], 5.0, lambda: None)
    before = await here.add(3)

    async def no_answer(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(here, "_register", no_answer)
        with pytest.raises(ConnectionError):
            await here.register_again()
    after = await here.register_again()
    assert len(after) == 3
    assert not {slot.id for slot in before} & {slot.id for slot in after}
    assert {slot.id for slot in here.slots.values()} == {slot.id for slot in after}
