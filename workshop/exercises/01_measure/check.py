"""The web server of chapter 1, in front of a mail server that is slow for a few emails."""

import json
from collections import Counter
from typing import Any

from workshop.inbox import Inbox
from workshop.program import Failed
from workshop.trial import Trial

COUNT, CALLERS = 200, 10
FAST, SLOW, SLOWEST = 0.005, 0.6, 2.5  # seconds
RUN_SECONDS = 60.0  # also for one caller after the other
EDGE_SECONDS = 0.5  # before the first email has reached the mail server, and after the last one
ALONE = 60  # emails of the run with one caller
AT_ONCE_SECONDS = 0.012  # between an answer and the next request of this caller; a pause would be longer
QUEUE = "measure.py: does it count the time in which an email waits for a free caller?"
NOT_ALL = 0.75
"""p99 is well below the longest time, and p50 well below p99, on a busy machine too."""


async def check(trial: Trial) -> str:
    inbox = await trial.inbox(FAST)
    slowest = trial.random.randrange(1, CALLERS)  # among the first ones, which a warm-up would leave out
    slow = trial.random.sample(range(CALLERS, COUNT - 30), 9)
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
        raise Failed(f"{CALLERS} callers request emails at the same time", happened, "measure.py, measure()")
    requested = Counter(arrival.to for arrival in inbox.arrivals)
    if requested != Counter(map(address, range(COUNT))):
        happened = f"{len(requested)} different emails arrived, {requested.total()} in all"
        raise Failed(f"the emails 0 to {COUNT - 1} are requested once each", happened, "measure.py, measure()")
    check_turns(inbox, address(slowest))
    check_figures(figures, inbox)
    await check_alone(trial)
    return f"p50 {figures['p50_ms']:.0f} ms, p99 {figures['p99_ms']:.0f} ms, longest {figures['max_ms']:.0f} ms"


def address(number: int) -> str:
    return f"measure-{number}@example.com"


def read(text: str) -> dict[str, float]:
    try:
        figures: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
        return {name: float(figures[name]) for name in ("p50_ms", "p99_ms", "max_ms")}
    except (IndexError, KeyError, TypeError, ValueError):
        raise Failed("a line of JSON with p50_ms, p99_ms and max_ms", text[-200:] or "nothing", "measure.py") from None


def check_turns(inbox: Inbox, slowest: str) -> None:
    """While one caller waits for the slowest email, the others go on; callers that wait for each other do not."""
    began, ended = (next(one.at for one in seen if one.to == slowest) for seen in (inbox.begun, inbox.arrivals))
    meanwhile = sum(began < one.at < ended for one in inbox.begun)
    if meanwhile < CALLERS:
        happened = f"only {meanwhile} requests were sent while one email took {SLOWEST * 1000:.0f} ms"
        raise Failed("each caller goes on without waiting for the other callers", happened, "measure.py, measure()")


async def check_alone(trial: Trial) -> None:
    """One caller, so that each request follows an answer to the same caller."""
    inbox = await trial.inbox(FAST)
    _, port = await trial.start_chapter("1_foreground", SMTP_URL=inbox.smtp_url)
    program = await trial.run("measure.py", f"http://127.0.0.1:{port}/", ALONE, 1)
    if inbox.most_in_flight > 1 or len(inbox.arrivals) != ALONE:
        happened = f"{len(inbox.arrivals)} emails arrived, and {inbox.most_in_flight} requests were in flight"
        raise Failed(f"with COUNT={ALONE} and CALLERS=1, one caller requests {ALONE} emails", happened, "measure.py")
    seconds = (inbox.arrivals[-1].at - inbox.begun[0].at) / 1e9 + EDGE_SECONDS
    if (p50 := read(program.text())["p50_ms"]) > (most := seconds / (ALONE / 2) * 1000):
        expected = f"with one caller, p50 is at most {most:.0f} ms: it had {ALONE} answers after {seconds:.1f} s"
        raise Failed(expected, f"p50 {p50:.0f} ms", QUEUE)
    pauses = [(after.at - before.at) / 1e9 for before, after in zip(inbox.arrivals, inbox.begun[1:], strict=False)]
    if (pause := sorted(pauses)[ALONE // 10]) > AT_ONCE_SECONDS:
        happened = f"in nine of ten cases, at least {pause * 1000:.0f} ms passed between an answer and the next request"
        raise Failed(
            "each caller requests the next email as soon as it has its answer", happened, "measure.py, measure()"
        )


def check_figures(figures: dict[str, float], inbox: Inbox) -> None:
    p50, p99, longest = figures["p50_ms"], figures["p99_ms"], figures["max_ms"]
    happened = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {longest:.0f} ms"
    look = "measure.py, percentile()"
    if longest < SLOWEST * 1000:
        raise Failed(f"the longest time is at least {SLOWEST * 1000:.0f} ms: one email takes that", happened, look)
    if p99 < SLOW * 1000:
        raise Failed(f"p99 is at least {SLOW * 1000:.0f} ms: ten of 200 emails take that", happened, look)
    check_sum(p50, inbox, happened)
    if p99 > NOT_ALL * longest:
        raise Failed("p99 is not the longest time: one of 200 is less than one percent", happened, look)
    if p50 > NOT_ALL * p99:
        raise Failed("p50 is well below p99: most emails are fast", happened, look)


def check_sum(p50: float, inbox: Inbox, happened: str) -> None:
    """Together, callers cannot wait longer than CALLERS times the time that all emails took; a queue adds to that."""
    seconds = (inbox.arrivals[-1].at - inbox.begun[0].at) / 1e9 + EDGE_SECONDS
    others = CALLERS * seconds - 9 * SLOW - SLOWEST  # half of all times are p50 or more, and ten of these are slow
    if p50 > (most := others / (COUNT / 2 - 10) * 1000):
        expected = f"p50 is at most {most:.0f} ms: {CALLERS} callers had all answers after {seconds:.1f} s"
        raise Failed(expected, happened, QUEUE)
