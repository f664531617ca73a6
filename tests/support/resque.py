"""A queue for one test, and workers in the test's own process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

import resque
from resque import claims, delayed, housekeeping, observe, queues, registration
from resque import keys as keys_module
from tests.support.programs import a_name, until
from tests.support.servers import Valkey

Definition = resque.Definition

RAW = '{"class":"note","queue":"q","args":[{"to":"x"},1]}'

NASTY = 'a "quote", a back\\slash, a /slash/, </script>, \u2028, \x00\x1f\x7f, 😀 and é'

WORKER_KEYS = ["py:attempts", "py:crashes", "py:leases", "py:unreadable", "workers", "workers:heartbeat"]


class ReadableQueue(resque.Queue):
    """A queue with short forms of what tests read."""

    async def names(self) -> list[str]:
        return await queues.Queues(self.client, self.keys).names()

    async def length(self, name: str) -> int | None:
        [state] = await queues.Queues(self.client, self.keys).states([name])
        return state.length

    async def paused(self, name: str) -> str | None:
        [state] = await queues.Queues(self.client, self.keys).states([name])
        return state.paused

    async def peek(self, name: str, start: int = 0, count: int = 20) -> list[Any]:
        return [item.job(name) for item in await queues.Queues(self.client, self.keys).jobs(name, start, count)]

    async def delayed(self) -> list[tuple[int, Any]]:
        return [(found.second, found.job) for found in (await delayed.DelayedJobs(self).page()).jobs]


class Resque:
    """A new namespace in a Valkey."""

    def __init__(self, valkey: Valkey, connections: Any) -> None:
        self.valkey = valkey
        self.connections = connections
        self.namespace = f"test-{a_name()}"
        self.keys = keys_module.Keys(self.namespace)
        self.queue = self.new_queue()
        self.scripts = self.queue.scripts
        self.observer = observe.Observer(connections.commands, self.keys)
        self.seen: list[Any] = []
        """All events of the workers."""

    def new_queue(self, **definitions: Any) -> Any:
        return ReadableQueue(self.connections.commands, self.namespace, definitions)

    def get(self, command: str, *args: Any) -> Any:
        """Send a command to Redis."""
        return self.valkey.client.execute_command(command, *args)  # type: ignore[no-untyped-call]

    def all_keys(self) -> list[str]:
        """All keys of this namespace, without its prefix."""
        found: list[str] = self.get("KEYS", f"{self.namespace}:*")
        return sorted(key.removeprefix(f"{self.namespace}:") for key in found)

    def worker_keys(self) -> list[str]:
        """The keys of workers, and of the jobs that they have or have tried."""
        return [key for key in self.all_keys() if key in WORKER_KEYS or key.startswith("worker:")]

    def waiting(self, queue: str = "q") -> list[str]:
        """RAW jobs, the oldest first."""
        found: list[str] = self.get("LRANGE", self.keys.queue(queue), 0, -1)
        return found

    def failed(self) -> list[Any]:
        return [orjson.loads(record) for record in self.get("LRANGE", self.keys.failed, 0, -1)]

    def events(self, kind: str) -> list[Any]:
        return [event for event in self.seen if type(event).__name__ == kind]

    def worker(self, queues: Sequence[str] = ("q",), connections: Any = None, **options: Any) -> Any:
        definitions = options.pop("definitions")
        return resque.Worker(
            connections or self.connections,
            queues,
            definitions,
            namespace=self.namespace,
            hook=self.seen.append,
            **({"lease_seconds": 5.0, "drain_seconds": 2.0} | options),
        )

    @asynccontextmanager
    async def working(self, queues: Sequence[str] = ("q",), **options: Any) -> AsyncIterator[Any]:
        """A worker that runs as long as the block."""
        async with resque.open_connections(self.valkey.url) as connections:
            worker = self.worker(queues, options.pop("connections", connections), **options)
            stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()

            async def stopped() -> str:
                return await stop

            task = asyncio.create_task(worker.run(stopped))
            try:
                await until(lambda: self.events("Started") or task.done(), "the worker has started")
                yield worker
            finally:
                if not stop.done():
                    stop.set_result("the test is over")
                await task

    async def slots(self, count: int = 1, lease_seconds: float = 5.0, queues: Sequence[str] = ("q",)) -> list[Any]:
        """Slots without a heartbeat, like those of a process that has stopped."""
        silent = registration.Registration(
            self.scripts, self.connections.thread, self.keys, queues, lease_seconds, lambda: None
        )
        found: list[Any] = await silent.add(count)
        return found

    def claims(self, *queues: str, per_second: float | None = None) -> Any:
        return claims.Claims(self.scripts, self.keys, queues or ("q",), per_second)

    def housekeeping(self, **options: Any) -> Any:
        return housekeeping.Housekeeping(
            self.connections.commands, self.scripts, self.keys, self.seen.append, **options
        )


@asynccontextmanager
async def a_resque(valkey: Valkey) -> AsyncIterator[Resque]:
    async with resque.open_connections(valkey.url) as connections:
        yield Resque(valkey, connections)


class Jobs:
    """Jobs that raise, wait or return as the test demands, and record their arguments."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.errors: list[BaseException] = []
        """The errors that the next calls raise."""
        self.gate = asyncio.Event()

    async def note(self, *args: Any) -> int:
        if self.errors:
            raise self.errors.pop(0)
        self.done.append(args)
        return len(self.done)

    async def wait(self, *args: Any) -> None:
        await self.gate.wait()
        self.done.append(args)

    def definitions(self, **more: Any) -> dict[str, Any]:
        return {"note": Definition(self.note, **more), "wait": Definition(self.wait)}
