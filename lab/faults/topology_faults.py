"""Faults of Redis with replicas: a primary fails, its links are cut, it cannot be reached, or a slot is moved.

SIGKILL alone does not test replication, because the kernel still delivers what the killed process has written. So one
fault cuts the links first, and the bytes in transit are lost.
"""

import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from time import perf_counter_ns

from redis.exceptions import RedisError

from common.services.node import RESTART_SECONDS
from lab.faults.fault import Fault, NoEffect
from lab.faults.process_faults import kill_and_wait
from lab.faults.running import Running
from lab.faults.topology_promises import CUT_SECONDS
from lab.harness.account import Injection
from lab.harness.frozen import frozen
from lab.harness.nodes import FAILOVER_SECONDS, ClusterNodes, Nodes, SentinelNodes
from lab.harness.processes import POLL_SECONDS, ChildFailed, wait_until
from lab.harness.proxy import CLIENT

LINK_CUT_SECONDS = 2.0
CHANGE_SECONDS = 5.0  # for a failover that began before the old primary was started again
TRIES = 3  # on a busy machine a killed primary may be started again before the others notice
KEYS = {4: ["emailz"], 5: ["{resque}"], 6: ["eventlog:partitions", "{email}"]}
"""One in each slot that matters most; in a cluster the fault concerns the primary of one of them."""

Step = Callable[[Nodes, str], object]
"""What is done to the primary with this name."""


def cut_and_kill_primary(running: Running, rng: random.Random) -> Injection:
    """What the primary sends while the links are cut is lost with it."""

    def cut(nodes: Nodes, primary: str) -> None:
        nodes.hold([name for name in nodes.names if name != primary], [primary])
        time.sleep(LINK_CUT_SECONDS)

    return replaced(running, rng, before=cut, after=lambda nodes, primary: nodes.cut(primary))


def cut_off_sentinels(count: int) -> Fault:
    """Kill the primary while this number of sentinels cannot reach any other process."""

    def fault(running: Running, rng: random.Random) -> Injection:
        nodes = running.nodes
        gone = rng.sample(nodes.sentinels, count)

        def cut(nodes: Nodes, _: str) -> None:
            nodes.isolate(gone, [*nodes.names, *nodes.sentinels, CLIENT])
            nodes.hold(gone, gone)  # otherwise two of them elect a leader, who replaces the primary when they return

        majority_is_left = 2 * count < len(nodes.sentinels)
        return replaced(running, rng, before=cut) if majority_is_left else not_replaced(running, rng, cut, gone)

    return fault


def do_nothing(nodes: Nodes, primary: str) -> None:
    pass


def replaced(running: Running, rng: random.Random, before: Step = do_nothing, after: Step = do_nothing) -> Injection:
    """Kill the primary, and wait until a replica has taken over.

    The fault begins at the first try, because a replica may take over late. It ends when the primary is dead. If the
    primary was started again before a replica took over, it ends at the failover, because what the primary accepted in
    between is lost too.
    """
    nodes, key = running.nodes, rng.choice(KEYS[running.subject.number])
    nodes.settle()
    begin = perf_counter_ns()
    for _ in range(TRIES):
        primary = settled_primary(nodes, key)
        try:
            before(nodes, primary)
            offset, pid = written_by(nodes, primary), nodes.pid(primary)
            kill_and_wait(pid, signal.SIGKILL)
            end = perf_counter_ns()
            after(nodes, primary)
            new = replacement(nodes, key, primary, RESTART_SECONDS + CHANGE_SECONDS)
            if nodes.pid(primary) != pid:
                end = perf_counter_ns()
            return Injection(begin, end, max(0, offset - received_by(nodes, new)))
        except NotReplaced:
            continue
        finally:
            nodes.restore()
    raise NoEffect(f"{TRIES} times the primary was started again before a replica took over")


def not_replaced(running: Running, rng: random.Random, before: Step, gone: Sequence[str]) -> Injection:
    """Kill the primary while these sentinels are cut off, so no replica can take over. Wait until it runs again."""
    nodes, key = running.nodes, rng.choice(KEYS[running.subject.number])
    primary, begin = settled_primary(nodes, key), perf_counter_ns()
    try:
        before(nodes, primary)
        pid = nodes.pid(primary)
        kill_and_wait(pid, signal.SIGKILL)
        new = wait_until(lambda: nodes.pid(primary) != pid and nodes.primary(key), "a primary", FAILOVER_SECONDS)
        if new != primary:
            raise NoEffect("a replica has taken over without a majority of the sentinels")
        assert isinstance(nodes, SentinelNodes)
        nodes.show_primary(gone)
    finally:
        nodes.restore()
    return Injection(begin, perf_counter_ns())


def freeze_primary(running: Running, rng: random.Random) -> Injection:
    """Freeze the primary until after the failover. Then there are two primaries until the old one learns of it."""

    def stop(nodes: Nodes, primary: str) -> Callable[[], None]:
        stack = ExitStack()
        stack.enter_context(frozen(nodes.pid(primary)))
        return stack.close

    return two_primaries(running, rng, stop)


def leave_primary_alone(running: Running, rng: random.Random) -> Injection:
    def isolate(nodes: Nodes, primary: str) -> Callable[[], None]:
        nodes.isolate([primary], [*nodes.names, *nodes.sentinels])
        return nodes.restore

    return two_primaries(running, rng, isolate)


def two_primaries(running: Running, rng: random.Random, begin: Callable[[Nodes, str], Callable[[], None]]) -> Injection:
    """`begin` lets the primary fail, and returns what ends that. The fault ends when the old primary is a replica."""
    nodes, key = running.nodes, rng.choice(KEYS[running.subject.number])
    primary, start = settled_primary(nodes, key), perf_counter_ns()
    offset = written_by(nodes, primary)
    end = begin(nodes, primary)
    try:
        received = received_by(nodes, replacement(nodes, key, primary, FAILOVER_SECONDS))
    finally:
        end()
    offset = last_offset(nodes, primary, offset)
    return Injection(start, perf_counter_ns(), max(0, offset - received))


def last_offset(nodes: Nodes, primary: str, offset: int) -> int:
    """Watch the old primary until it is a replica. Returns its last known offset as a primary."""
    deadline = time.monotonic() + FAILOVER_SECONDS
    while True:
        with suppress(RedisError):
            facts = nodes.replication(primary)
            if facts["role"] == "slave":
                return offset
            offset = int(facts["master_repl_offset"])
        if time.monotonic() > deadline:
            raise NoEffect("the old primary has not become a replica")
        time.sleep(POLL_SECONDS)


def settled_primary(nodes: Nodes, key: str) -> str:
    nodes.settle()
    return wait_until(lambda: nodes.primary(key), "a primary")


class NotReplaced(ChildFailed):
    """No replica has taken over."""


def replacement(nodes: Nodes, key: str, before: str, limit: float) -> str:
    """The new primary of this key. Raises NotReplaced after `limit` seconds."""
    try:
        return wait_until(lambda: nodes.primary(key, other_than=before), "a failover", limit)
    except ChildFailed as error:
        raise NotReplaced(str(error)) from None


def written_by(nodes: Nodes, primary: str) -> int:
    """The offset up to which the primary has written its replication stream."""
    return int(nodes.replication(primary)["master_repl_offset"])


def received_by(nodes: Nodes, new: str) -> int:
    """The offset up to which the new primary had received the old one's stream when it took over."""
    return int(nodes.replication(new)["second_repl_offset"]) - 1


def cut_off(seconds: float) -> Fault:
    """For this time, our processes and Redis receive nothing from each other. No connection is closed."""

    def fault(running: Running, rng: random.Random) -> Injection:
        nodes = running.nodes
        nodes.settle()
        begin = perf_counter_ns()
        nodes.hold([CLIENT], [*nodes.names, *nodes.sentinels])
        time.sleep(seconds)
        nodes.restore()
        return Injection(begin, perf_counter_ns())

    return fault


def move_slot(running: Running, rng: random.Random) -> Injection:
    nodes = running.nodes
    assert isinstance(nodes, ClusterNodes)
    nodes.settle()
    begin = perf_counter_ns()
    nodes.move_slot(rng.choice(KEYS[running.subject.number]))
    return Injection(begin, perf_counter_ns())


TOPOLOGY_INJECTIONS: dict[str, Fault] = {
    "primary-kill": replaced,
    "primary-cut": cut_and_kill_primary,
    "primary-freeze": freeze_primary,
    "primary-alone": leave_primary_alone,
    **{name: cut_off(seconds) for name, seconds in CUT_SECONDS.items()},
    "sentinel-one": cut_off_sentinels(1),
    "sentinel-two": cut_off_sentinels(2),
    "slot-move": move_slot,
}
