"""`python -m lab.browser.cost`: what the page, the browser and the lab itself cost, in CPU time.

It starts a lab, opens its page in a headless Chromium, and prints

- how long it took from opening the address until the first picture was drawn
- for each rate, the CPU milliseconds per frame that the page needs: of its main thread (layout, style, and in total),
  and of each process of the browser. For this the page replays made-up emails (page/assets/replay.js), and draws 60
  frames for each second of them, however long a frame takes. So the figures depend little on the machine's other load.
- for each rate, the CPU seconds per second of each part, while real emails go through all lanes: the browser's
  processes, the lab's own process, the mail server, Redis, and each strategy with all its processes

    python -m lab.browser.cost [--rates 20 200] [--seconds 20]
"""

import argparse
import asyncio
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from lab.browser.sequences import START_SECONDS, do
from lab.chromium import Page, PageError, chromium, find_browser
from lab.harness.processes import Lab, python

WARM_SECONDS = 4.0
FRAMES = 200  # of a replay
BACKLOG = 1000  # emails that wait in each lane, for a strategy that cannot keep up
ALL_RUN = "window.lab?.frame?.lanes.every(lane => lane.status === 'runs')"
DELIVERED = "window.lab.frame.lanes.reduce((sum, lane) => sum + lane.numbers.delivered, 0)"
PICTURES = (
    "[performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0,"
    " performance.getEntriesByName('first picture')[0].startTime]"
)
MAIN_THREAD = {"RecalcStyleDuration": "style", "LayoutDuration": "layout", "TaskDuration": "all"}
"""Chromium's metrics of the page's main thread, in seconds of CPU time, and what this program calls them."""


def part_of(process: psutil.Process) -> str:
    """What a process belongs to, by its command line."""
    words = process.cmdline()
    line = " ".join(words)
    if "chrom" in words[0]:
        kind = next((word.partition("=")[2] for word in words if word.startswith("--type=")), "main")
        return f"browser: {kind}"
    if "lab.harness.inbox" in words:
        return "mail server"
    if "lab.browser" in words:
        return "the lab itself"
    if "common.processes.run" in words:
        return f"strategy {words[-1]}"
    return "Redis" if "valkey" in line else "others"


def cpu_seconds() -> dict[str, float]:
    """CPU seconds so far of each part: every process that this program has started, directly or not."""
    found, parts = defaultdict[str, float](float), dict[int, str]()
    for process in psutil.Process().children(recursive=True):  # each after the process that has started it
        try:
            times, above = process.cpu_times(), parts.get(process.ppid(), "")
            part = parts[process.pid] = above if above.startswith("strategy") else part_of(process)
            found[part] += times.user + times.system
        except (psutil.Error, IndexError):  # it has just ended, or has not begun
            continue
    return found


async def main_thread(page: Page) -> dict[str, float]:
    metrics = (await page.call("Performance.getMetrics"))["metrics"]
    return {MAIN_THREAD[each["name"]]: each["value"] for each in metrics if each["name"] in MAIN_THREAD}


async def measure_frames(page: Page, rate: int, backlog: int) -> None:
    """Print what a frame costs at this rate."""
    cpu, thread = cpu_seconds(), await main_thread(page)
    await page.evaluate(f"import('/assets/replay.js').then(it => it.replay({rate}, {backlog}, {FRAMES}))")
    cpu_now, thread_now = cpu_seconds(), await main_thread(page)
    costs = {f"main thread, {name}": thread_now[name] - thread[name] for name in thread}
    costs |= {part: cpu_now[part] - cpu[part] for part in sorted(cpu) if part.startswith("browser")}
    print(f"\n{rate} emails/s and {backlog} waiting in each lane: CPU milliseconds per frame")
    for name, seconds in costs.items():
        print(f"  {name:24}{seconds * 1000 / FRAMES:7.2f}", flush=True)


async def measure_lab(page: Page, rate: int, seconds: float) -> None:
    """Print what everything costs at this rate."""
    lanes = await page.evaluate("window.lab.frame.lanes.map(lane => lane.lane)")
    await do(page, do="heal")
    await do(page, do="load", lanes=lanes, rate=rate)
    await asyncio.sleep(WARM_SECONDS)
    begin, cpu = time.monotonic(), cpu_seconds()
    frames, emails = await page.evaluate("window.lab.picture.drawn"), await page.evaluate(DELIVERED)
    await asyncio.sleep(seconds)
    took, cpu_now = time.monotonic() - begin, cpu_seconds()
    frames = await page.evaluate("window.lab.picture.drawn") - frames
    emails = max(1, await page.evaluate(DELIVERED) - emails)
    await do(page, do="load", lanes=lanes, rate=0)
    used = {part: cpu_now[part] - cpu[part] for part in sorted(cpu_now)}
    print(f"\n{rate} emails/s requested from each of {len(lanes)} lanes: CPU seconds per second")
    for part, spent in {**used, "sum": sum(used.values())}.items():
        print(f"  {part:24}{spent / took:7.3f}")
    print(f"  {emails / took:.0f} emails/s arrived, {frames / took:.0f} frames/s were drawn")
    print(f"  CPU milliseconds of the lab itself per email: {used['the lab itself'] * 1000 / emails:.2f}", flush=True)


async def measure(page: Page, rates: list[int], seconds: float) -> None:
    await page.wait_for("performance.getEntriesByName('first picture').length > 0")
    paint, picture = await page.evaluate(PICTURES)
    print(f"after opening the address: first paint {paint:.0f} ms, first picture of all lanes {picture:.0f} ms")
    await page.wait_for(ALL_RUN, START_SECONDS)
    await page.call("Performance.enable", timeDomain="threadTicks")
    for rate in rates:
        await measure_frames(page, rate, 0)
    await measure_frames(page, max(rates), BACKLOG)
    for rate in rates:
        await measure_lab(page, rate, seconds)


async def run(rates: list[int], seconds: float) -> None:
    browser = find_browser()
    if browser is None:
        raise PageError("this needs Chromium, such as Debian's package chromium")
    with TemporaryDirectory(prefix="six-ways-cost-", ignore_cleanup_errors=True) as folder:
        async with chromium(browser, Path(folder) / "browser") as page:
            begin = time.monotonic()
            with Lab(Path(folder)).child(python("lab.browser"), "browser-lab", False, 60.0, LAB_PORT=0) as child:
                address = await asyncio.to_thread(child.wait_for, r"the lab is at (\S+)")
                print(f"from the start of the lab until it prints its address: {time.monotonic() - begin:.1f} s")
                await page.open(address)
                await measure(page, rates, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="The CPU time that the browser lab needs, by part.")
    parser.add_argument("--rates", type=int, nargs="+", default=[20, 200], help="emails per second and lane")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each rate, with real emails")
    options = parser.parse_args()
    asyncio.run(run(options.rates, options.seconds))


if __name__ == "__main__":
    main()
