"""The queues that are measured, and with which settings. The programs are lab/bench/peers/NAME.{py,mjs}."""

import json
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).parents[1] / "bench" / "peers"
VERSIONS = Path(__file__).with_name("versions.json")
OURS = "ours"


@dataclass(frozen=True)
class Peer:
    name: str
    concurrency: int
    """How many jobs its one worker process runs at a time."""
    why: str
    """Where that number comes from."""
    killed: str
    """What its code and its manual say about the jobs of a killed worker, with its default settings."""
    is_node: bool = False

    @property
    def packages(self) -> list[str]:
        """Pinned, as pip or npm reads them; none for our queue."""
        found: list[str] = json.loads(VERSIONS.read_text()).get(self.name, [])
        return found


PEERS = [
    Peer(OURS, 100, "slots", "run again when the lease has ended, after 10 s"),
    Peer(
        "bullmq",
        100,
        "concurrency; the default is 1",
        "run again when found stalled (lockDuration, stalledInterval: 30 s each), and only once (maxStalledCount)",
        is_node=True,
    ),
    Peer(
        "node-resque",
        10,
        "the default of its MultiWorker, which runs this number of workers in one process",
        "moved to the failed list after 60 minutes, if a scheduler runs; an operator retries them",
        is_node=True,
    ),
    Peer(
        "saq", 100, "concurrency; the default is 10", "aborted by a sweep, every 60 s; run again only with retries > 1"
    ),
    Peer(
        "taskiq",
        100,
        "the default of max_async_tasks",
        "run again after 10 minutes (idle_timeout of the stream broker)",
    ),
    Peer("dramatiq", 8, "the default number of threads", "run again 60 s after the last heartbeat, or later"),
    Peer("huey", 8, "threads; the default is 1", "lost: a worker pops a job before it runs it"),
    Peer("arq", 100, "max_jobs; the default is 10", "run again after 310 s (job_timeout and 10 s)"),
]
