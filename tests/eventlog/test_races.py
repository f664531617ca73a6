"""Races and crashes of every engine of the log, and the quick start of its README."""

import asyncio
import random
import re
import subprocess
import sys
from typing import Any

from tests.support.event_log import (
    an_event,
    commit,
)
from tests.support.programs import LIMIT, ROOT
from tests.support.servers import Valkey

# Races and crashes, simulated in one process


async def test_every_consumer_gets_every_event_under_races_and_crashes(new_log: Any) -> None:
    """Producers repeat appends, consumers die while they hold events, and partitions are tiny."""
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    producers = [await new_log(partition_events=7, partition_seconds=0.02) for _ in range(3)]
    appended: list[str] = []

    async def produce(log: Any) -> None:
        for _ in range(80):
            event = an_event(0, f"<{chance.getrandbits(60):x}@x>")
            for _ in range(chance.choice([1, 1, 2])):
                await log.append(event)
            appended.append(event.id)

    async def consume(name: str, seen: list[str]) -> None:
        log = await new_log(lease=0.3)
        while not done() or len(set(seen)) < len(appended):
            claimed = await log.claim(name, chance.randint(1, 20), wait=0.1)
            seen += [one.event().id for one in claimed]
            if chance.random() < 0.05:
                log = await new_log(lease=0.3)  # the old process dies while it holds these events
            else:
                await commit(log, claimed)

    producing = [asyncio.create_task(produce(log)) for log in producers]

    def done() -> bool:
        return all(task.done() for task in producing)

    seen: dict[str, list[str]] = {name: [] for name in ("email", "audit")}
    async with asyncio.timeout(4 * LIMIT):
        await asyncio.gather(*producing, *[consume(name, seen[name]) for name in seen for _ in range(2)])
    for name, ids in seen.items():
        assert set(ids) == set(appended), f"{name}, seed {seed}"
    log = await new_log()
    assert len(set(appended)) == 240
    everything = await claim_all_ids(log, "afterwards")
    assert sorted(everything) == sorted(appended), f"the log has each event once, seed {seed}"


async def claim_all_ids(log: Any, consumer: str) -> list[str]:
    found: list[str] = []
    while claimed := await log.claim(consumer, 100):
        found += [one.event().id for one in claimed]
        await commit(log, claimed)
    return found


def test_the_quick_start_of_the_library_prints_what_its_readme_says(valkey: Valkey) -> None:
    code = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "eventlog" / "README.md").read_text())[0]
    program = code.replace("Redis(port=6379)", f'Redis.from_url("{valkey.url}")')
    valkey.client.flushall()
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout == "order_placed book\n", done.stderr
