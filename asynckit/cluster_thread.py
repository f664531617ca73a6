"""The client for a Redis Cluster in a thread of its own: for the heartbeat of a worker."""

import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.connection import Connection as BlockingConnection

from asynckit.cluster import Address, BlockingFindsOwner, Topology, slot_of
from asynckit.cluster_client import LOST, PAUSE_SECONDS, REDIRECT_SECONDS, REDIRECTIONS, key_of
from asynckit.connections import BlockingLeavesReplica, with_mixins


def blocking_cluster_client(hosts: Sequence[Address], options: dict[str, Any], key: str | None) -> redis.Redis:
    topology = Topology(hosts, options)
    members = {"topology": topology, "slot": slot_of(key or "")}
    finding = with_mixins((BlockingFindsOwner, BlockingLeavesReplica), BlockingConnection, options, **members)
    pool = redis.ConnectionPool(**finding)
    pool.make_connection()
    return BlockingClusterRedis(topology, options, pool) if key is None else redis.Redis(connection_pool=pool)


class BlockingClusterRedis(redis.Redis):
    """Like ClusterRedis, without pipelines."""

    def __init__(self, topology: Topology, options: dict[str, Any], pool: redis.ConnectionPool) -> None:
        super().__init__(connection_pool=pool)
        self._topology = topology
        self._options = options
        self._nodes: dict[Address, redis.Redis] = {}

    def close(self) -> None:
        super().close()
        for node in self._nodes.values():
            node.connection_pool.disconnect()

    def execute_command(self, *words: Any, **options: Any) -> Any:
        key = key_of(words)
        if key is None:
            return super().execute_command(*words, **options)  # type: ignore[no-untyped-call]
        slot, deadline = slot_of(key), time.monotonic() + REDIRECT_SECONDS
        while True:
            if not self._topology.is_known:
                self._topology.ask_blocking()
            node = self.node(self._topology.owner(slot))
            try:
                return node.execute_command(*words, **options)  # type: ignore[no-untyped-call]
            except REDIRECTIONS:  # ASK, too: the slot will be at the other node soon
                self._topology.is_known = False
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_SECONDS)
            except LOST:
                self._topology.is_known = False
                raise

    def node(self, address: Address) -> redis.Redis:
        if address not in self._nodes:
            host, port = address
            options = {**self._options, "host": host, "port": port}
            finding = with_mixins((BlockingLeavesReplica,), BlockingConnection, options)
            self._nodes[address] = redis.Redis(connection_pool=redis.ConnectionPool(**finding))
        return self._nodes[address]
