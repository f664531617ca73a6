"""Clients for a Redis Cluster that send each command to the node of its key and, like our other clients, repeat none.

redis-py's RedisCluster repeats commands whose answers were lost. It sends WAIT to another node than the write before
it; and during a move of a slot it sends ASKING and the command on two different connections, so the command fails.
Here each node has a client of its own, and these answers of a node lead to another attempt, because the command has not
run:

    MOVED       the key's slot is at another node: ask for all slots again, and use that node
    ASK         the slot is being moved, and this key is not here: ask the other node, by ASKING on the same connection
    TRYAGAIN    the slot is being moved, and only some keys of a script are here: wait until all are at the other node

After any other error the caller decides what to do, and the next command asks again which node has which slots.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import Connection, ConnectionPool
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from asynckit.cluster import Address, FindsOwner, Topology, slot_of
from asynckit.connections import LeavesReplica, NotConnected, with_mixins

REDIRECT_SECONDS = 2.0  # for how long a command is sent again while its slot is being moved
PAUSE_SECONDS = 0.02
KEYLESS = frozenset({"CLIENT", "CLUSTER", "CONFIG", "INFO", "PING", "PUBLISH", "PUBSUB", "SCRIPT", "TIME", "WAIT"})
REDIRECTIONS = (AskError, TryAgainError)  # a MovedError is an AskError
LOST = (ConnectionError, TimeoutError, ClusterDownError)

Result = TypeVar("Result")
Command = tuple[tuple[Any, ...], Mapping[str, Any]]


def cluster_client(hosts: Sequence[Address], options: dict[str, Any], key: str | None) -> Redis:
    """The client of the node that has the key; if `key` is None, a ClusterRedis."""
    topology = Topology(hosts, options)
    pool = _pool_of(key or "", topology, options)
    pool.make_connection()  # type: ignore[no-untyped-call]  # does not connect, but checks the options
    return ClusterRedis(topology, options, pool) if key is None else Redis.from_pool(pool)


def _pool_of(key: str, topology: Topology, options: dict[str, Any]) -> ConnectionPool:
    """Connections to the node that has the key."""
    members = {"topology": topology, "slot": slot_of(key)}
    return ConnectionPool(**with_mixins((FindsOwner, LeavesReplica), Connection, options, **members))


def client_of(redis: Redis, key: str) -> Redis:
    """In a cluster, the client of the node that has the key, which `redis` closes; otherwise `redis` itself."""
    return redis.client_of(key) if isinstance(redis, ClusterRedis) else redis


def is_on_cluster(redis: Redis) -> bool:
    return issubclass(redis.connection_pool.connection_class, FindsOwner)


def key_of(words: Sequence[Any]) -> str | bytes | None:
    """The first key of a command, as redis-py writes it; None if the command has no key."""
    name = str(words[0]).upper()
    if name in ("EVALSHA", "EVAL"):
        return str(words[3]) if int(words[2]) else None
    if name == "XREAD":
        return str(words[list(words).index(b"STREAMS") + 1])
    if name.split(" ")[0] in KEYLESS or len(words) == 1:
        return None
    key: str | bytes = words[1]
    return key


class ClusterRedis(Redis):
    """Has the commands and pipelines of Redis. All keys of a command must be in one slot.

    Commands without a key and subscriptions go to the node that has slot 0. So `register_script` loads a script there
    only: use EVALSHA, and EVAL after a NoScriptError.
    """

    def __init__(self, topology: Topology, options: dict[str, Any], pool: ConnectionPool) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self._topology = topology
        self._options = options
        self._nodes: dict[Address, Redis] = {}
        self._clients: list[Redis] = []
        self._asking = asyncio.Lock()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        for client in (*self._nodes.values(), *self._clients):
            await client.aclose()

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        key = key_of(words)
        if key is None:
            return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]

        async def run(node: Redis, asking: bool) -> Any:
            if not asking:
                return await node.execute_command(*words, **options)  # type: ignore[no-untyped-call]
            [answer] = await send(node, [(words, options)], asking=True)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return await self.routed(slot_of(key), run)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "ClusterPipeline":
        """A transaction must have keys of one slot. The commands of other pipelines are sent to each node at once."""
        return ClusterPipeline(self, transaction)

    def client_of(self, key: str) -> Redis:
        """The client of the node that has this key, for keys with the same hash tag."""
        client = Redis.from_pool(_pool_of(key, self._topology, self._options))
        self._clients.append(client)
        return client

    async def primaries(self) -> list[Redis]:
        """A client for each node that has slots."""
        await self._learn()
        return [self._node(address) for address in self._topology.owners()]

    async def node_of(self, slot: int) -> Redis:
        await self._learn()
        return self._node(self._topology.owner(slot))

    async def routed(self, slot: int, run: Callable[[Redis, bool], Awaitable[Result]]) -> Result:
        """Call `run` with the client of the slot's node, and again after a redirection; True: with ASKING."""
        deadline, asking = time.monotonic() + REDIRECT_SECONDS, False
        node = await self.node_of(slot)
        while True:
            try:
                return await run(node, asking)
            except REDIRECTIONS as error:
                if time.monotonic() > deadline:
                    raise
                asking = isinstance(error, AskError) and not isinstance(error, MovedError)
                node = await self._redirected(slot, node, error)
            except LOST:
                self._topology.is_known = False
                raise

    async def _redirected(self, slot: int, node: Redis, error: ResponseError) -> Redis:
        if not isinstance(error, AskError):
            await asyncio.sleep(PAUSE_SECONDS)
            return await self.node_of(slot)
        host = error.host or str(node.connection_pool.connection_kwargs["host"])  # "" means: the same host
        if isinstance(error, MovedError):
            self._topology.move(slot, (host, error.port))
        return self._node((host, error.port))

    def lost(self) -> None:
        """A node did not answer, so another node may have its slots now."""
        self._topology.is_known = False

    async def _learn(self) -> None:
        """Raises NotConnected when no node answers."""
        async with self._asking:
            if not self._topology.is_known:
                try:
                    await self._topology.ask()
                except ConnectionError as error:
                    raise NotConnected(str(error)) from error

    def _node(self, address: Address) -> Redis:
        if address not in self._nodes:
            host, port = address
            options = with_mixins((LeavesReplica,), Connection, {**self._options, "host": host, "port": port})
            self._nodes[address] = Redis.from_pool(ConnectionPool(**options))
        return self._nodes[address]


async def send(node: Redis, commands: Sequence[Command], *, asking: bool = False) -> list[Any]:
    """Send commands on one connection. Returns the answers; an error of the node is an answer."""
    pipeline = node.pipeline(transaction=False)
    for words, options in commands:
        if asking:
            pipeline.execute_command("ASKING")
        pipeline.execute_command(*words, **options)
    answers = await pipeline.execute(raise_on_error=False)
    return answers[1::2] if asking else answers


class ClusterPipeline(Pipeline):
    """A command without a key goes to the node of the command before it, on the same connection."""

    def __init__(self, client: ClusterRedis, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = list(self.command_stack)
        await self.reset()  # type: ignore[no-untyped-call]
        slots = slots_of(commands)
        if self.is_transaction:
            return await self._client.routed(slots[0], _transaction(commands)) if commands else []
        answers: list[Any] = [None] * len(commands)
        for node, numbers in (await self._by_node(slots)).items():
            try:
                found = await send(node, [commands[number] for number in numbers])
            except LOST:
                self._client.lost()
                raise
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = answer
        for slot in dict.fromkeys(slots):
            await self._follow(slot, commands, [n for n, its_slot in enumerate(slots) if its_slot == slot], answers)
        if raise_on_error:
            self.raise_first_error(commands, answers)
        return answers

    async def _by_node(self, slots: Sequence[int]) -> dict[Redis, list[int]]:
        nodes: dict[Redis, list[int]] = defaultdict(list)
        for number, slot in enumerate(slots):
            nodes[await self._client.node_of(slot)].append(number)
        return nodes

    async def _follow(self, slot: int, commands: Sequence[Command], numbers: list[int], answers: list[Any]) -> None:
        """Repeat the commands of this slot that were redirected, and its WAIT, which has waited at the wrong node."""
        left = to_repeat(commands, numbers, answers)
        if not left:
            return

        async def run(node: Redis, asking: bool) -> None:
            nonlocal left
            found = await send(node, [commands[number] for number in left], asking=asking)
            for number, answer in zip(left, found, strict=True):
                answers[number] = answer
            left = to_repeat(commands, left, answers)
            for number in left:
                if isinstance(answers[number], REDIRECTIONS):
                    raise answers[number]

        with suppress(*REDIRECTIONS):  # they are among the answers
            await self._client.routed(slot, run)


def slots_of(commands: Sequence[Command]) -> list[int]:
    slots: list[int] = []
    for words, _ in commands:
        key = key_of(words)
        slots.append(slot_of(key) if key is not None else slots[-1] if slots else 0)
    return slots


def to_repeat(commands: Sequence[Command], numbers: Sequence[int], answers: Sequence[Any]) -> list[int]:
    """Of these commands, those that were redirected, and those without a key; none if none was redirected."""
    if not any(isinstance(answers[number], REDIRECTIONS) for number in numbers):
        return []
    return [n for n in numbers if isinstance(answers[n], REDIRECTIONS) or key_of(commands[n][0]) is None]


def _transaction(commands: Sequence[Command]) -> Callable[[Redis, bool], Awaitable[list[Any]]]:
    async def run(node: Redis, asking: bool) -> list[Any]:
        if asking:  # a node takes no transaction with keys of a slot that is being moved to it
            await asyncio.sleep(PAUSE_SECONDS)
            raise TryAgainError("the slot is being moved")
        pipeline = node.pipeline(transaction=True)
        for words, options in commands:
            pipeline.execute_command(*words, **options)
        return list(await pipeline.execute())

    return run
