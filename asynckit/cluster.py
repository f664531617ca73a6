"""Finding the nodes of a Redis Cluster: `redis+cluster://[user:password@]host[:port],host…`.

A cluster has 16384 *hash slots*. A key's name decides its slot, and each slot belongs to one primary. If the name has a
*hash tag*, a part in braces, only that part decides: keys with the same tag are in the same slot, so on the same node.
When a primary fails, one of its replicas takes over its slots; and an operator can move slots to other nodes.

The hosts in the URL are only the first ones to be asked; any node knows all others. `rediss+cluster://` uses TLS for
all of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import redis
from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from asynckit.redis_url import host_and_port, split_url

SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
NODE_PORT = 6379
SLOTS = 16_384
NODE_SECONDS = 0.5  # how long one node may take to say which node has which slots
EXPECTED = "expected redis+cluster://user:password@host1:6379,host2"

Address = tuple[str, int]


class ClusterUrl(NamedTuple):
    hosts: tuple[Address, ...]
    node: str
    """A URL with the login and options of every node; its host is the first one."""


def read_cluster_url(url: str) -> ClusterUrl | None:
    """None if the URL is of another kind. Raises ValueError with a reason that names no part of the URL."""
    parts = split_url(url)
    if parts.scheme not in SCHEMES:
        return None
    login, at, addresses = parts.netloc.rpartition("@")
    hosts = tuple(host_and_port(one, NODE_PORT, EXPECTED) for one in addresses.split(",") if one)
    if not hosts or parts.path not in ("", "/", "/0") or parts.fragment:
        raise ValueError(f"names no host, or a database other than 0; {EXPECTED}")
    (host, port), *_ = hosts
    bracketed = f"[{host}]" if ":" in host else quote(host)
    node = f"{SCHEMES[parts.scheme]}://{login}{at}{bracketed}:{port}/0"
    return ClusterUrl(hosts, f"{node}?{parts.query}" if parts.query else node)


def slot_of(key: str | bytes) -> int:
    return key_slot(key.encode() if isinstance(key, str) else key)


class Topology:
    """Which node has which slots, as far as one client knows."""

    def __init__(self, hosts: Sequence[Address], options: dict[str, Any]) -> None:
        """`options`: of a connection to any node."""
        self.is_known = False
        self._hosts = tuple(hosts)
        self._nodes: list[Address] = []
        self._owners: list[Address | None] = [None] * SLOTS
        self._options = {**options, "socket_timeout": NODE_SECONDS, "socket_connect_timeout": NODE_SECONDS}

    def owner(self, slot: int) -> Address:
        """Raises ClusterDownError when no node has the slot."""
        owner = self._owners[slot]
        if owner is None:
            raise ClusterDownError(f"no node of the cluster has slot {slot}")
        return owner

    def owners(self) -> list[Address]:
        return sorted({owner for owner in self._owners if owner is not None})

    def move(self, slot: int, owner: Address) -> None:
        """A node has said that the slot is at another node; probably it is not the only slot that was moved."""
        self._owners[slot] = owner
        self.is_known = False

    async def ask(self) -> None:
        """Ask the nodes, one after the other. Raises ConnectionError when none answers."""
        for address in self._candidates():
            try:
                async with Redis.from_pool(ConnectionPool(**self._options_of(address))) as node:
                    # Two words, because redis-py has a parser of its own for the one word.
                    ranges = await node.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
            except (RedisError, OSError) as error:
                _raise_if_refused(error)
            else:
                if self._remember(ranges, address):
                    return
        raise ConnectionError("no node of the cluster answers")

    def ask_blocking(self) -> None:
        for address in self._candidates():
            try:
                with redis.Redis.from_pool(redis.ConnectionPool(**self._options_of(address))) as node:
                    ranges = node.execute_command("CLUSTER", "SLOTS")
            except (RedisError, OSError) as error:
                _raise_if_refused(error)
            else:
                if self._remember(ranges, address):
                    return
        raise ConnectionError("no node of the cluster answers")

    def _options_of(self, address: Address) -> dict[str, Any]:
        host, port = address
        return {**self._options, "host": host, "port": port}

    def _candidates(self) -> list[Address]:
        """The node that answered last is the first one; the hosts of the URL come last, if all nodes have changed."""
        return list(dict.fromkeys([*self._nodes, *self._hosts]))

    def _remember(self, ranges: Any, asked: Address) -> bool:
        """Returns False if the node knows of no slots: it does not belong to the cluster yet, or any more."""
        owners: list[Address | None] = [None] * SLOTS
        nodes = {asked}
        for first, last, *members in ranges:
            # A node that does not know its own address says "": it is the one that was asked.
            addresses = [((host or b"").decode() or asked[0], int(port)) for host, port, *_ in members]
            owners[first : last + 1] = addresses[:1] * (last + 1 - first)
            nodes.update(addresses)
        if ranges:
            self._owners, self.is_known = owners, True
            self._nodes = sorted(nodes, key=lambda node: (node != asked, node))
        return bool(ranges)


def _raise_if_refused(error: Exception) -> None:
    """Another node would not answer either when the login is wrong or the server is no cluster."""
    if isinstance(error, (AuthenticationError, ResponseError)):
        raise error


# The last one: this node has lost contact with the others, and one of those may have its slots.
WRONG_NODE = (ReadOnlyError, MovedError, ClusterDownError)


class FindsOwner:
    """Mixed into a connection of redis-py, whose class has `topology` and `slot`: it connects to the slot's node."""

    wrong_node: tuple[type[RedisError], ...] = WRONG_NODE
    topology: Topology
    slot: int
    host: str
    port: int

    async def _connect(self) -> None:
        await self.topology.ask()
        self.host, self.port = self.topology.owner(self.slot)
        await super()._connect()  # type: ignore[misc]


class BlockingFindsOwner:
    """The same for a connection of a thread."""

    wrong_node: tuple[type[RedisError], ...] = WRONG_NODE
    topology: Topology
    slot: int
    host: str
    port: int

    def _connect(self) -> Any:
        self.topology.ask_blocking()
        self.host, self.port = self.topology.owner(self.slot)
        return super()._connect()  # type: ignore[misc]
