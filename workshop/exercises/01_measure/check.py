"""The web server of chapter 1, in front of a mail server that is slow for a few emails."""

import json
from collections import Counter
from typing import Any

from workshop.program import Failed
from workshop.trial import Trial

COUNT, CALLERS = 200, 10
FAST, SLOW, SLOWEST = 0.005, 0.6, 2.5  # seconds
RUN_SECONDS = 60.0  # also for one caller after the other
NOT_ALL = 0.75
"""p99 is well below the longest time, and p50 well below p99, on a busy machine too."""


async def check(trial: Trial) -> str:
    inbox = await trial.inbox(FAST)
    slowest, *slow = trial.random.sample(range(5, COUNT - 30), 10)
    inbox.slow = {address(number): SLOW for number in slow} | {address(slowest): SLOWEST}
    _, port = await trial.start_chapter("1_foreground", SMTP_URL=inbox.smtp_url)
    program = await trial.start("measure.py", f"http://127.0.0.1:{port}/", COUNT, CALLERS)
    if status := await program.wait(RUN_SECONDS):
        raise Failed("measure.py ends with status 0", f"status {status}; {program.tail()}", "measure.py")
    figures = read(program.text())
    trial.measured = round(figures["p99_ms"])
    most = inbox.most_in_flight
    if not CALLERS / 2 <= most <= CALLERS:
        requests = "1 request was" if most == 1 else f"{most} requests were"
        happened = f"at most {requests} in flight"
        raise Failed(f"{CALLERS} callers ask at the same time", happened, "measure.py, measure()")
    requested = Counter(arrival.to for arrival in inbox.arrivals)
    if requested != Counter(map(address, range(COUNT))):
        happened = f"{len(requested)} different emails arrived, {requested.total()} in all"
        raise Failed(f"the emails 0 to {COUNT - 1} are requested once each", happened, "measure.py, measure()")
    check_figures(figures)
    return f"p50 {figures['p50_ms']:.0f} ms, p99 {figures['p99_ms']:.0f} ms, longest {figures['max_ms']:.0f} ms"


def address(number: int) -> str:
    return f"measure-{number}@example.com"


def read(text: str) -> dict[str, float]:
    try:
        figures: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
        return {name: float(figures[name]) for name in ("p50_ms", "p99_ms", "max_ms")}
    except (IndexError, KeyError, TypeError, ValueError):
        raise Failed("a line of JSON with p50_ms, p99_ms and max_ms", text[-200:] or "nothing", "measure.py") from None


def check_figures(figures: dict[str, float]) -> None:
    p50, p99, longest = figures["p50_ms"], figures["p99_ms"], figures["max_ms"]
    happened = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {longest:.0f} ms"
    look = "measure.py, percentile()"
    if longest < SLOWEST * 1000:
        raise Failed(f"the longest time is at least {SLOWEST * 1000:.0f} ms: one email takes that", happened, look)
    if p99 < SLOW * 1000:
        raise Failed(f"p99 is at least {SLOW * 1000:.0f} ms: ten of 200 emails take that", happened, look)
    if p99 > NOT_ALL * longest:
        raise Failed("p99 is not the longest time: one of 200 is less than one percent", happened, look)
    if p50 > NOT_ALL * p99:
        raise Failed("p50 is well below p99: most emails are fast", happened, look)
