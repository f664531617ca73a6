"""`python -m lab.browser.sequences`: random faults by a seed, then the check that every number on the page closes.

For each seed it opens the page in a Chromium without a window, sends bursts and injects faults at random, repairs
everything, and waits until every lane has settled. Then the numbers on the page must close, must be those of the mail
server's inbox, and must agree with the strategies' own counters.

    python -m lab.browser.sequences [--first 1] [--count 20] [--actions 8]

Prints one line for each seed, and the longest time from the last event of a lane until its account closed. The exit
status is 1 when a number did not close.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

from lab.chromium import Page, PageError, chromium, find_browser
from lab.harness.processes import Child, Lab, python

START_SECONDS = 300.0  # on a machine that does much else
SETTLE_SECONDS = 90.0
DIALS: tuple[dict[str, float], ...] = (
    {},
    {"latency_ms": 300},
    {"hang_rate": 0.5},
    {"lose_reply_rate": 0.5},
    {"refuse_rate": 0.5, "refuse_code": 451},
    {"refuse_rate": 0.3, "refuse_code": 550},
)
CLOSES = "(n => n.accepted === n.delivered + n.in_flight + n.waiting + n.failed + n.unknown + n.lost)"
SETTLED = "window.lab.frame.lanes.every(lane => lane.settled || lane.status.startsWith('did not start'))"
SHOWN = (
    "Object.fromEntries([...document.querySelectorAll('article.lane')].map(lane => [lane.id.slice(5),"
    " Object.fromEntries([...lane.querySelectorAll('.numbers > div')].map(cell =>"
    " [cell.className.split(' ')[0], Number(cell.querySelector('dd').textContent.replaceAll(',', ''))]))]))"
)


@dataclass
class Outcome:
    seed: int
    actions: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    closed_after: float = 0.0
    """The longest time from the last event of a lane until its account closed, in seconds."""
    numbers: dict[str, dict[str, int]] = field(default_factory=dict)


async def do(page: Page, **body: object) -> str:
    """What the page itself does for a click. Returns the lab's reason if it refuses, else ""."""
    expression = f"import('/assets/stream.js').then(m => m.ask({json.dumps(body)})).then(() => '', e => e.message)"
    return str(await page.evaluate(expression))


async def run_sequence(page: Page, seed: int, actions: int, inbox: str) -> Outcome:
    """Raises PageError when the accounts of the sequence before do not settle."""
    rng, found = random.Random(seed), Outcome(seed)
    await page.wait_for(SETTLED, SETTLE_SECONDS)
    before = count_received(inbox)
    await do(page, do="heal")
    await page.wait_for("window.lab.frame.lanes.every(lane => lane.numbers.asked === 0)")
    for _ in range(actions):
        body = random_action(rng, await page.evaluate("window.lab.frame.lanes"))
        refused = await do(page, **body)
        found.actions.append(" ".join(map(str, body.values())) + (f" ({refused})" if refused else ""))
        await asyncio.sleep(rng.uniform(0.05, 0.7))
    await do(page, do="dial")
    await do(page, do="load", lanes=await page.evaluate("window.lab.frame.lanes.map(lane => lane.lane)"), rate=0)
    for lane in await page.evaluate("window.lab.frame.lanes"):
        for process in lane["processes"]:
            await do(page, do="signal", lane=lane["lane"], role=process["role"], pid=process["pid"], how="thaw")
    await do(page, do="signal", lane="1", role="redis", how="thaw")
    try:
        await page.wait_for(SETTLED, SETTLE_SECONDS)
    except PageError:
        left = await page.evaluate("window.lab.frame.lanes.filter(lane => !lane.settled)")
        found.problems += [f"lane {lane['lane']} has not settled: {lane}" for lane in left]
    await check(page, found, count_received(inbox) - before)
    return found


def random_action(rng: random.Random, lanes: list[dict[str, Any]]) -> dict[str, object]:
    names = [lane["lane"] for lane in lanes]
    some = rng.sample(names, rng.randint(1, len(names)))
    lane = rng.choice(lanes)
    kind = rng.choice(("burst", "burst", "load", "dial", "signal", "signal", "redis", "worker"))
    match kind:
        case "burst":
            return {"do": "burst", "lanes": some, "count": rng.randint(1, 60)}
        case "load":
            return {"do": "load", "lanes": some, "rate": rng.choice((0, 5, 10, 20))}
        case "dial":
            return {"do": "dial", **rng.choice(DIALS)}
        case "worker":
            return {"do": "worker", "lane": rng.choice(names)}
        case "redis":
            return {
                "do": "signal",
                "lane": lane["lane"],
                "role": "redis",
                "how": rng.choice(("kill", "freeze", "thaw")),
            }
        case _:
            how = rng.choice(("kill", "term", "freeze", "thaw"))
            process = rng.choice(lane["processes"] or [{"role": "server", "pid": None}])
            return {"do": "signal", "lane": lane["lane"], "role": process["role"], "how": how, "pid": process["pid"]}


async def check(page: Page, found: Outcome, received: int) -> None:
    """Compare what the page shows with itself, with the inbox and with the strategies' own counters."""
    lanes, shown = await page.evaluate("window.lab.frame.lanes"), await page.evaluate(SHOWN)
    arrived: Counter[str] = Counter()
    for lane in lanes:
        name, numbers = lane["lane"], lane["numbers"]
        found.numbers[name] = numbers
        found.closed_after = max(found.closed_after, lane["closed_after"] or 0.0)
        if not await page.evaluate(f"{CLOSES}({json.dumps(numbers)})"):
            found.problems.append(f"lane {name} does not close: {numbers}")
        if different := {key: count for key, count in shown[name].items() if numbers[key] != count}:
            found.problems.append(f"lane {name} shows {different}, but has {numbers}")
        if left := {key: numbers[key] for key in ("in_flight", "waiting", "unknown") if numbers[key]}:
            found.problems.append(f"lane {name} has settled with {left}")
        found.problems += [f"lane {name}: {gap}" for gap in lane["gaps"]]
        arrived.update({key: numbers[key] for key in ("delivered", "twice", "recovered", "unexpected", "late")})
    if received != arrived.total():
        found.problems.append(f"the inbox has {received} emails, the page {arrived.total()}: {dict(arrived)}")
    found.problems += page.errors


def count_received(inbox: str) -> int:
    with urlopen(f"{inbox}api/stats", timeout=10) as answer:  # noqa: S310  our own server
        return int(json.load(answer)["received"])


@asynccontextmanager
async def lab_in_browser(
    lab: Lab, folder: Path, strategies: str = "1 2 3 4 5 6"
) -> AsyncIterator[tuple[Page, str, Child]]:
    """A lab on a free port, its page in a browser, and the address of its inbox. Raises PageError, ChildFailed."""
    browser = find_browser()
    if browser is None:
        raise PageError("this needs Chromium, such as Debian's package chromium")
    with lab.child(python("lab.browser"), "browser-lab", False, 60.0, LAB_PORT=0, STRATEGIES=strategies) as child:
        address = await asyncio.to_thread(child.wait_for, r"the lab is at (\S+)")
        async with chromium(browser, folder / "browser") as page:
            await page.open(address)
            await page.wait_for("window.lab?.frame?.lanes.every(lane => lane.status === 'runs')", START_SECONDS)
            with await asyncio.to_thread(urlopen, f"{address}health") as answer:
                yield page, json.load(answer)["inbox"], child


async def run_all(first: int, count: int, actions: int) -> bool:
    longest, good = 0.0, True
    with TemporaryDirectory(prefix="six-ways-sequences-", ignore_cleanup_errors=True) as folder:
        async with lab_in_browser(Lab(Path(folder)), Path(folder)) as (page, inbox, _):
            for seed in range(first, first + count):
                begin = time.monotonic()
                found = await run_sequence(page, seed, actions, inbox)
                longest, good = max(longest, found.closed_after), good and not found.problems
                sums = Counter[str]()
                for numbers in found.numbers.values():
                    sums.update(numbers)
                words = ", ".join(
                    f"{sums[name]} {name}" for name in ("accepted", "delivered", "lost", "twice", "failed")
                )
                print(
                    f"seed {seed}: {words}; {time.monotonic() - begin:.0f} s", *found.problems, sep="\n  ", flush=True
                )
                if found.problems:
                    print("  after: " + "; ".join(found.actions))
    print(f"the longest time from the last event of a lane until its account closed: {longest:.1f} s")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description="Random faults by a seed, and the check that every number closes.")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=20, help="how many seeds")
    parser.add_argument("--actions", type=int, default=8, help="how many random actions for each seed")
    options = parser.parse_args()
    sys.exit(not asyncio.run(run_all(options.first, options.count, options.actions)))


if __name__ == "__main__":
    main()
