"""`make run-5 DEMO=1`: how many jobs should one process run at a time? As many as its event loop can handle.

The queue has 500 jobs that sleep for a second and 10 that compute for a second. One process runs them without knowing
which is which: once with all jobs on the event loop, and once with the computing jobs in a pool of processes.
"""

import asyncio
import time
from dataclasses import dataclass, field

from redis.asyncio import Redis
from rich.console import Console
from rich.text import Text

from asynckit.tasks import end_tasks
from common.processes.process import stop_requested
from common.settings import Settings
from resque import Connections, Definition, Definitions, Queue, Scaling, Worker, open_connections
from resque.events import Event, Failed, Resized, Succeeded

SLEEPING, COMPUTING = 500, 10
SECONDS = 1.0
MOST = 100  # slots
NAMESPACE = "resque-demo"  # separate from the emails
QUEUE = "demo"
EVERY_SECONDS = 0.25  # between two lines
WIDTH = 20  # characters of a full bar
FULL_DELAY = 1.0  # seconds of delay of a full bar


async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


def compute(seconds: float) -> int:
    """Use this many seconds of CPU time; returns how far it counted."""
    ends, number = time.process_time() + seconds, 0
    while time.process_time() < ends:
        number += 1
    return number


async def compute_on_the_loop(seconds: float) -> int:
    return compute(seconds)


RUNS: dict[str, Definitions] = {
    "all on the event loop": {"sleep": Definition(sleep), "compute": Definition(compute_on_the_loop)},
    "the computing jobs in a pool of processes": {
        "sleep": Definition(sleep),
        "compute": Definition(compute, in_process=True),
    },
}


@dataclass
class Watcher:
    """Counts the jobs that have ended and records the changes of the number of slots."""

    total: int
    done: int = 0
    most_slots: int = 0
    worst_delay: float = 0.0
    sizes: list[int] = field(default_factory=list)
    all_done: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, event: Event) -> None:
        match event:
            case Succeeded() | Failed():
                self.done += 1
                if self.done == self.total:
                    self.all_done.set()
            case Resized(slots, before):
                self.sizes += [slots] if self.sizes else [before, slots]

    async def wait(self) -> str:
        """Wait until all jobs are done or the process is stopped; returns which of the two."""
        done, stop = asyncio.create_task(self.all_done.wait()), asyncio.create_task(stop_requested())
        await asyncio.wait([done, stop], return_when=asyncio.FIRST_COMPLETED)
        reason = "all done" if done.done() else stop.result()
        await end_tasks([done, stop])
        return reason


async def enqueue(redis: Redis) -> int:
    """Enqueue both kinds mixed, so that computing jobs come throughout the run; returns how many jobs."""
    queue, every = Queue(redis, NAMESPACE), SLEEPING // COMPUTING
    await queue.remove(QUEUE)
    names = [name for _ in range(COMPUTING) for name in ("compute", *["sleep"] * every)]
    await asyncio.gather(*[queue.enqueue(QUEUE, name, [SECONDS]) for name in names])
    return len(names)


async def run(connections: Connections, definitions: Definitions, console: Console) -> str | None:
    """Do one of the two runs; returns its result, None if it was stopped early."""
    watcher = Watcher(await enqueue(connections.commands))
    scaling = Scaling(1, MOST)
    worker = Worker(connections, [QUEUE], definitions, namespace=NAMESPACE, scaling=scaling, hook=watcher)
    started = time.monotonic()
    drawing = asyncio.create_task(draw(worker, watcher, console))
    try:
        await worker.run(watcher.wait)
    finally:
        await end_tasks([drawing])
    seconds = time.monotonic() - started
    if not watcher.all_done.is_set():
        return None
    return (
        f"{seconds:.1f} s, {watcher.done} jobs, up to {watcher.most_slots} slots, "
        f"the loop up to {watcher.worst_delay * 1000:.0f} ms late"
    )


async def draw(worker: Worker, watcher: Watcher, console: Console) -> None:
    """Print a line every quarter of a second: the number of slots, the loop's delay, and the changes of the number."""
    started = time.monotonic()
    while True:
        slots, delay = worker.slots, worker.delay.seconds
        watcher.most_slots, watcher.worst_delay = max(watcher.most_slots, slots), max(watcher.worst_delay, delay)
        sizes, watcher.sizes = watcher.sizes, []
        line = Text(f"{time.monotonic() - started:5.1f} s {watcher.done:3} done  slots {slots:3} ")
        line.append(bar(slots / MOST), "cyan").append(f" delay {delay * 1000:4.0f} ms ")
        line.append(bar(delay / FULL_DELAY, WIDTH // 2), "red").append(f" {' → '.join(map(str, sizes))}", "dim")
        console.print(line, soft_wrap=True)
        await asyncio.sleep(EVERY_SECONDS)


def bar(fraction: float, width: int = WIDTH) -> str:
    return ("█" * round(min(1.0, fraction) * width)).ljust(width, "·")


async def demo(settings: Settings) -> None:
    console = Console(highlight=False)
    results = {}
    jobs = f"{SLEEPING} jobs that sleep 1 s and {COMPUTING} that compute for 1 s"
    for title, definitions in RUNS.items():
        console.print(f"\n{jobs}, {title}:", style="bold", soft_wrap=True)
        async with open_connections(settings.redis) as connections:
            result = await run(connections, definitions, console)
        if result is None:
            return
        results[title] = result
    console.print()
    for title, result in results.items():
        console.print(f"{title}: {result}", style="bold", soft_wrap=True)
