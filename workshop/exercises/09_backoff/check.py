"""The pauses themselves, and then a mail server that refuses, with the moments of all attempts."""

import json
from typing import Any

from workshop.inbox import Inbox
from workshop.program import Failed, Program
from workshop.trial import Trial, accepted, new_email, until

BASE, CAP = 0.5, 20.0  # seconds, for the pauses alone
QUICK_BASE, QUICK_CAP = 0.1, 1.6  # for the emails
ATTEMPTS = 6
LEAST_SECONDS = 2.8  # of the last pauses of all emails together; about 11 s if they are random
TAG = "back"
SENT, LATE, NEVER, REFUSED, LAST = range(4), range(10, 22), range(22, 24), range(30, 32), range(40, 46)


async def check(trial: Trial) -> str:
    printed = await trial.run("send.py", "pauses", BASE=str(BASE), CAP=str(CAP), ATTEMPTS=str(ATTEMPTS))
    check_pauses(read(printed, "pauses"))
    inbox = await trial.inbox()
    inbox.refuse = refuse
    numbers = [*SENT, *LATE, *NEVER, *REFUSED]
    emails = {number: new_email(TAG, number) for number in numbers}
    records = [accepted(number, email["id"]) for number, email in emails.items()]
    settings = {"BASE": str(QUICK_BASE), "CAP": str(QUICK_CAP), "ATTEMPTS": str(ATTEMPTS), "SMTP_URL": inbox.smtp_url}
    sending = await trial.run("send.py", EMAILS=json.dumps([*emails.values()]), **settings)
    tries = {number: attempts(inbox, number) for number in numbers}
    expect_tries(tries, REFUSED, 1, "refused for good (550)")
    expect_tries(tries, NEVER, ATTEMPTS, f"refused for now (451) each time, with ATTEMPTS={ATTEMPTS},")
    expect_tries(tries, LATE, ATTEMPTS, f"refused for now {ATTEMPTS - 1} times")
    delivered = [record for record in records if record[0] in (*SENT, *LATE)]
    trial.check_account(trial.account(delivered, inbox, TAG), "backoff.py, deliver()")
    if read(sending, "results") != [number in (*SENT, *LATE) for number in numbers]:
        raise Failed("deliver() returns whether the email was sent", f"{sending.tail()}", "backoff.py, deliver()")
    check_growth(inbox)
    await check_last_pause(trial, inbox)
    return f"{len(delivered)} emails were sent, {len(LATE)} of them at attempt {ATTEMPTS}"


def check_growth(inbox: Inbox) -> None:
    """The pauses before the last attempts. A slow machine makes them longer, never shorter."""
    seconds = 0.0
    for number in (*LATE, *NEVER):
        moments = [begun.at for begun in inbox.begun if begun.to == f"{TAG}-{number}@example.com"]
        seconds += (moments[-1] - moments[-2]) / 1e9
    if seconds < LEAST_SECONDS:
        count, mean = len(LATE) + len(NEVER), seconds / (len(LATE) + len(NEVER))
        happened = f"with BASE={QUICK_BASE:g} and CAP={QUICK_CAP:g}, {count} emails paused for {mean:.2f} s on average"
        look = "backoff.py, deliver(): how long does it pause after which attempt?"
        raise Failed(f"before attempt {ATTEMPTS}, deliver() pauses for pause({ATTEMPTS - 1})", happened, look)


async def check_last_pause(trial: Trial, inbox: Inbox) -> None:
    """One attempt, and very long pauses: none of them may be taken."""
    inbox.refuse = lambda to, attempt: 451
    emails = [new_email(TAG, number) for number in LAST]
    settings = {"BASE": "6000", "CAP": "6000", "ATTEMPTS": "1", "SMTP_URL": inbox.smtp_url}
    sending = await trial.start("send.py", EMAILS=json.dumps(emails), **settings)
    if not await until(lambda: sending.status is not None):
        happened = "with ATTEMPTS=1, it pauses after the only attempt"
        raise Failed("no pause after the last attempt", happened, "backoff.py, deliver()")


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
        spread = sorted(pauses)[int(len(pauses) * 0.95)] - sorted(pauses)[int(len(pauses) * 0.05)]
        if spread < 0.35 * longest:
            happened = f"nine of ten lie within {spread:g} s, so emails that failed together come back together"
            raise Failed(f"half of the longest pause ({longest:g} s) is left to chance {where}", happened, look)
