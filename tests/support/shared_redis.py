"""A namespace of one Redis that our workers and node-resque use together."""

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

from tests.support.node_peer import NodeResque
from tests.support.resque import Resque
from tests.support.resque_worker import Jobs


class Shared(Resque):
    """A namespace that both sides use."""

    peer: NodeResque

    @property
    def client(self) -> Any:
        return self.valkey.client

    async def node(self, kind: str, method: str, *args: Any, **options: Any) -> Any:
        return await self.peer(self.namespace, kind, method, *args, **options)

    async def node_worker(self, name: str = "node:1+1") -> None:
        await self.node("worker", "start", name=name, queues=["q"], timeout=10)

    def our_worker(self, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self.working(definitions=Jobs(self.connections.commands, self.namespace).definitions, **options)

    def texts(self, name: str) -> list[str]:
        """The elements of `failed`, `notes` or `queue:q`."""
        found: list[str] = self.client.lrange(self.keys.key(name), 0, -1)
        return found

    def notes(self) -> list[tuple[str, list[Any]]]:
        """Which side ran which job."""
        return [(note["by"], note["args"]) for note in map(json.loads, self.texts("notes"))]
