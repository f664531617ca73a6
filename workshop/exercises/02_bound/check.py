"""The mail server hangs while 60 requests come at once; then it recovers; then it refuses."""

import asyncio
from collections import Counter

from workshop.program import Failed
from workshop.trial import Server, Trial, settled, until

LIMIT = 20
BURST = 60
GROUPS = (range(8), range(8, 16), range(16, 40), range(40, BURST))
"""The requests of a group come at the same time, after the answers to the group before."""
HANG_SECONDS = 300.0  # by the clock of the server; RFC 5321 lets it wait for 600 s
AFTER_SECONDS = 0.5  # in which a server that gives up cuts its sessions
ANSWER_SECONDS = 5.0  # "at once", on a busy machine


async def check(trial: Trial) -> str:
    inbox = await trial.inbox()
    server = await trial.start_server("server.py", SMTP_URL=inbox.smtp_url, SMTP_SESSIONS="100", MOVABLE_CLOCK="1")

    inbox.gate.clear()
    statuses = Counter[int]()
    for group in GROUPS:
        statuses += await burst(server, group)
    trial.measured = float(statuses[202])
    if statuses[202] != LIMIT or statuses[503] != BURST - LIMIT:
        raise Failed(
            f"while the mail server hangs, {LIMIT} of {BURST} requests get a 202 and the others a 503",
            f"the answers were {describe(statuses)}",
            "tasks.py, start(): what happens when LIMIT emails are in flight?",
        )
    refused = [number for number, *_, status, _ in server.records if status == 503]
    if without := [number for number in refused if "Retry-After" not in server.headers[number]]:
        raise Failed("each 503 has the header Retry-After", f"{len(without)} had none", "CannotAccept in tasks.py")
    await settled(lambda: len(inbox.begun), LIMIT)
    server.program.move_clock(HANG_SECONDS)
    await until(lambda: inbox.in_flight == 0, AFTER_SECONDS)
    inbox.gate.set()
    await settled(lambda: len(inbox.arrivals), LIMIT)
    trial.check_account(server.account(inbox, "bound"), "tasks.py: is each accepted email sent, and only those?")

    refused_ones = range(100, 100 + LIMIT)
    inbox.refuse = lambda to, attempt: 550 if int(to.split("-")[1].split("@")[0]) in refused_ones else 0
    await expect_room(server, refused_ones, "after all emails were sent")
    await settled(lambda: len(inbox.refusals), LIMIT)
    await expect_room(server, range(200, 200 + LIMIT), "after the mail server has refused 20 emails")
    await settled(lambda: len(inbox.arrivals), 2 * LIMIT)
    records = [record for record in server.records if record[0] not in refused_ones]
    trial.check_account(trial.account(records, inbox, "bound"), "tasks.py: is each accepted email sent?")
    return f"{LIMIT} of {BURST} requests got a 202 while the mail server hung, and there was room again afterwards"


async def burst(server: Server, numbers: range) -> Counter[int]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return Counter(await server.ask("bound", numbers))
    except TimeoutError:
        raise Failed(
            "each request is answered at once, with 202 or 503",
            f"some requests had no answer after {ANSWER_SECONDS:g} s, while the mail server hung",
            "tasks.py, start(): it must not wait",
        ) from None


async def expect_room(server: Server, numbers: range, when: str) -> None:
    statuses = await burst(server, numbers)
    if statuses[202] != len(numbers):
        raise Failed(
            f"{when}, {len(numbers)} requests get a 202",
            f"the answers were {describe(statuses)}",
            "tasks.py: when does an email stop counting as in flight?",
        )


def describe(statuses: Counter[int]) -> str:
    return ", ".join(f"{count} times {status or 'none'}" for status, count in sorted(statuses.items()))
