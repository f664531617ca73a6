"""The pauses themselves, and then a mail server that refuses, with the moments of all attempts."""

import asyncio
import json
from typing import Any

from workshop.inbox import Inbox
from workshop.program import LIMIT, Failed, Program
from workshop.trial import Trial, accepted, new_email, until

BASE, CAP = 0.5, 20.0  # seconds, for the pauses alone
QUICK_BASE, QUICK_CAP = 0.1, 1.6  # for the emails
ATTEMPTS = 6
LEAST_MEAN = 0.2  # seconds, of the last pauses; about 0.8 s if they are random
LEAST_SPREAD = 0.35  # seconds, between the short and the long last pauses; at least 0.6 s if they are random
STEP_BASE = 20.0  # seconds, by a clock that the check moves by more than the limit of a pause
STEP_FACTOR, STEP_SECONDS = 1.4, 0.3  # STEP_SECONDS: until all emails pause
PARTS, LEAST_PARTS = 20, 15  # of PARTS parts of the range, LEAST_PARTS must contain a pause
TAG = "back"
SENT, LATE, NEVER, REFUSED, LAST = range(4), range(100, 140), range(50, 52), range(30, 32), range(40, 46)
STEPS = range(200, 240)
"""The numbers of the emails. If only one email at a time could pause, all LATE ones together would take a minute."""


async def check(trial: Trial) -> str:
    limits = {"BASE": str(BASE), "CAP": str(CAP), "ATTEMPTS": str(ATTEMPTS)}
    printed = await trial.run("send.py", "pauses", look="backoff.py, pause()", **limits)
    check_pauses(first := read(printed, "pauses"))
    again = await trial.run("send.py", "pauses", look="backoff.py, pause()", **limits)
    if read(again, "pauses") == first:
        happened = "two processes drew the same pauses, so they try again at the same moments"
        raise Failed("the pauses of each process are random", happened, "backoff.py, pause(): is there a seed?")
    inbox = await trial.inbox()
    inbox.refuse = refuse
    numbers = [*SENT, *LATE, *NEVER, *REFUSED]
    emails = {number: new_email(TAG, number) for number in numbers}
    records = [accepted(number, email["id"]) for number, email in emails.items()]
    settings = {"BASE": str(QUICK_BASE), "CAP": str(QUICK_CAP), "ATTEMPTS": str(ATTEMPTS), "SMTP_URL": inbox.smtp_url}
    sending = await trial.start("send.py", EMAILS=json.dumps([*emails.values()]), **settings)
    in_time = await until(lambda: sending.status is not None)
    tries = {number: attempts(inbox, number) for number in numbers}
    if not in_time and max(tries.values()) <= ATTEMPTS:
        happened = f"after {LIMIT:g} s {sum(tries.values())} attempts had been made, and it is still running"
        look = "backoff.py, deliver(): does a pause stop the whole program?"
        raise Failed(f"while one of {len(numbers)} emails pauses, the others are tried", happened, look)
    if status := sending.status:
        raise Failed("send.py ends with status 0", f"status {status}; {sending.tail()}", "backoff.py, deliver()")
    expect_tries(tries, REFUSED, 1, "refused for good (550)")
    expect_tries(tries, NEVER, ATTEMPTS, f"refused for now (451) each time, with ATTEMPTS={ATTEMPTS},")
    expect_tries(tries, LATE, ATTEMPTS, f"refused for now {ATTEMPTS - 1} times")
    delivered = [record for record in records if record[0] in (*SENT, *LATE)]
    trial.check_account(trial.account(delivered, inbox, TAG), "backoff.py, deliver()")
    for number, result in zip(numbers, read(sending, "results"), strict=True):
        if result is not (sent := number in (*SENT, *LATE)):
            happened = f"it returned {result} for email {number}, which was {'' if sent else 'not '}sent"
            raise Failed("deliver() returns whether the email was sent", happened, "backoff.py, deliver()")
    check_first_attempts(inbox, numbers)
    check_growth(inbox)
    await check_last_pause(trial, inbox)
    await check_steps(trial)
    return f"{len(delivered)} emails were sent, {len(LATE)} of them at attempt {ATTEMPTS}"


def check_first_attempts(inbox: Inbox, numbers: list[int]) -> None:
    """Each email is tried before any of those that are refused for now reaches its last attempt."""
    first = {begun.to: begun.at for begun in reversed(inbox.begun)}
    last = {begun.to: begun.at for begun in inbox.begun}
    end = min(last[f"{TAG}-{number}@example.com"] for number in (*LATE, *NEVER))
    if waiting := sum(first[f"{TAG}-{number}@example.com"] > end for number in numbers):
        happened = f"{waiting} emails were not tried before others had made all their attempts"
        look = "backoff.py, deliver(): does an email wait while another one pauses?"
        raise Failed(f"while some of {len(numbers)} emails pause, the others are tried", happened, look)


def check_growth(inbox: Inbox) -> None:
    """The pauses before the last attempts. A slow machine makes them longer, never shorter."""
    pauses = []
    for number in (*LATE, *NEVER):
        moments = [begun.at for begun in inbox.begun if begun.to == f"{TAG}-{number}@example.com"]
        pauses.append((moments[-1] - moments[-2]) / 1e9)
    emails = f"with BASE={QUICK_BASE:g} and CAP={QUICK_CAP:g}, {len(pauses)} emails paused for"
    if (mean := sum(pauses) / len(pauses)) < LEAST_MEAN:
        look = "backoff.py, deliver(): how long does it pause after which attempt?"
        expected = f"before attempt {ATTEMPTS}, deliver() pauses for pause({ATTEMPTS - 1})"
        raise Failed(expected, f"{emails} {mean:.2f} s on average", look)
    short, long = share(pauses, 0.1), share(pauses, 0.9)
    if long - short < LEAST_SPREAD:
        look = "backoff.py, deliver(): does each email have a random pause of its own?"
        happened = f"{emails} almost the same time, {short:.2f} to {long:.2f} s"
        raise Failed("each email has a random pause of its own", happened, look)


def share(pauses: list[float], part: float) -> float:
    """The pause that is longer than this share of all pauses."""
    return sorted(pauses)[int(len(pauses) * part)]


async def check_last_pause(trial: Trial, inbox: Inbox) -> None:
    """One attempt, and very long pauses: none of them may be taken."""
    inbox.refuse = lambda to, attempt: 451
    emails = [new_email(TAG, number) for number in LAST]
    settings = {"BASE": "6000", "CAP": "6000", "ATTEMPTS": "1", "SMTP_URL": inbox.smtp_url}
    sending = await trial.start("send.py", EMAILS=json.dumps(emails), **settings)
    if not await until(lambda: sending.status is not None):
        happened = "with ATTEMPTS=1, it pauses after the only attempt"
        raise Failed("no pause after the last attempt", happened, "backoff.py, deliver()")


async def check_steps(trial: Trial) -> None:
    """All emails are refused. When the clock has moved by more than the limit of their pauses, all are tried again."""
    inbox = await trial.inbox()
    inbox.refuse = lambda to, attempt: 451
    emails = [new_email(TAG, number) for number in STEPS]
    settings = {"BASE": str(STEP_BASE), "CAP": "100", "ATTEMPTS": "9", "SMTP_URL": inbox.smtp_url, "MOVABLE_CLOCK": "1"}
    sending = await trial.start("send.py", EMAILS=json.dumps(emails), **settings)

    def tried(number: int) -> int:
        return sum(attempts(inbox, one) >= number for one in STEPS)

    await until(lambda: tried(1) == len(STEPS))
    for number in (1, 2):
        await asyncio.sleep(STEP_SECONDS)
        longest = STEP_BASE * 2 ** (number - 1)
        sending.move_clock(STEP_FACTOR * longest)
        if not await until(lambda number=number: tried(number + 1) == len(STEPS), LIMIT / 2):  # type: ignore[misc]
            left = len(STEPS) - tried(number + 1)
            happened = f"{left} of {len(STEPS)} emails still paused {STEP_FACTOR * longest:g} s later"
            look = "backoff.py, deliver(): how long does it pause after which attempt?"
            expected = f"with BASE={STEP_BASE:g}, deliver() pauses for at most {longest:g} s after attempt {number}"
            raise Failed(expected, happened, look)


def refuse(to: str, attempt: int) -> int:
    number = int(to.split("-")[1].split("@")[0])
    if number in REFUSED:
        return 550
    return 451 if number in NEVER or (number in LATE and attempt < ATTEMPTS) else 0


def attempts(inbox: Inbox, number: int) -> int:
    return sum(begun.to == f"{TAG}-{number}@example.com" for begun in inbox.begun)


def expect_tries(tries: dict[int, int], numbers: range, expected: int, what: str) -> None:
    for number in numbers:
        if tries[number] != expected:
            raise Failed(
                f"an email that is {what} is tried {expected} times",
                f"email {number} was tried {tries[number]} times",
                "backoff.py, deliver()",
            )


def read(program: Program, word: str) -> Any:
    for line in program.text().splitlines():
        if line.startswith(f"{word} "):
            return json.loads(line.partition(" ")[2])
    raise Failed(f"send.py prints {word}", program.tail(), "send.py, which you need not change")


def check_pauses(samples: dict[str, list[float]]) -> None:
    look = "backoff.py, pause()"
    for text, pauses in samples.items():
        attempt = int(text)
        longest = min(CAP, BASE * 2.0 ** min(attempt - 1, 60))
        where = f"after attempt {attempt}, with BASE={BASE:g} and CAP={CAP:g}"
        low, high = min(pauses), max(pauses)
        if low < 0 or high > longest * 1.0001:
            raise Failed(f"pauses of 0 to {longest:g} s {where}", f"one was {high if low >= 0 else low:g} s", look)
        if high < 0.85 * longest:
            raise Failed(f"pauses of up to {longest:g} s {where}", f"the longest of {len(pauses)} was {high:g} s", look)
        spread = share(pauses, 0.95) - share(pauses, 0.05)
        if spread < 0.35 * longest:
            happened = f"nine of ten lie within {spread:g} s, so emails that failed together are tried again together"
            raise Failed(f"at least half of the range of 0 to {longest:g} s is random {where}", happened, look)
        filled = len({min(int((pause - low) / (high - low) * PARTS), PARTS - 1) for pause in pauses})
        if filled < LEAST_PARTS:
            happened = f"the {len(pauses)} pauses have gaps: they lie in {filled} of {PARTS} equal parts of the range"
            raise Failed(f"pauses of any length between {low:g} and {high:g} s {where}", happened, look)
