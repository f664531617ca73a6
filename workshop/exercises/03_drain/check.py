"""SIGTERM with emails in flight: first to a mail server that is slow, then to one that hangs."""

import asyncio
import re
import socket
from contextlib import suppress

from workshop.inbox import Inbox
from workshop.program import Failed
from workshop.trial import Server, Trial, settled, until

EMAILS = 12
HANGING = 15
HOLD_SECONDS = 1.5  # longer than a mailer takes to say goodbye on open sessions
PACE_SECONDS = 0.03
LONG = "120"  # DRAIN_SECONDS where this limit is not reached
LIMITS = (100.0, 200.0)  # DRAIN_SECONDS of the two servers whose mail server hangs, by their own clocks
EARLY, LATE = [0.4, 0.8], 1.2  # of the limit: it has not given up at the early moments, and has at the late one
SENT = "drain-0@example.com"  # the email that is sent after the first of these moments
END_SECONDS = 10.0  # until the process must have ended, on a busy machine
LOOK = "tasks.py, drain()"


async def check(trial: Trial) -> str:
    await slow(trial)
    await hanging(trial)
    await idle(trial)
    return f"{EMAILS} emails were sent after SIGTERM, and `lost ID` was printed for each email that could not be sent"


async def slow(trial: Trial) -> None:
    inbox = await trial.inbox()
    refused = set(trial.random.sample(range(EMAILS), 2))
    inbox.refuse = lambda to, attempt: 550 if int(to.split("-")[1].split("@")[0]) in refused else 0
    inbox.refuses_behind_gate = True  # so they fail while the server drains
    inbox.pace_seconds = PACE_SECONDS
    inbox.gate.clear()
    server = await trial.start_server("server.py", SMTP_URL=inbox.smtp_url, DRAIN_SECONDS=LONG)
    await server.ask("drain", range(EMAILS))
    await settled(lambda: len(inbox.begun), EMAILS)
    server.program.terminate()
    await until(lambda: server.program.status is not None or not listens(server), END_SECONDS)
    await until(lambda: server.program.status is not None, HOLD_SECONDS)
    inbox.gate.set()
    status = await ended(server, "each email in flight was sent or refused")
    await settled(lambda: len(inbox.arrivals), EMAILS - len(refused), limit=0.3)
    found = trial.account([record for record in server.records if record[0] not in refused], inbox, "drain")
    trial.measured = float(found.lost)
    trial.check_account(found, f"{LOOK}: what does it wait for?")
    check_end(status, server, "the mail server was slow")
    if lost := re.findall("^lost .*", server.program.text(), re.MULTILINE):
        raise Failed("no line `lost ID`, because each email was sent or refused", f"it printed {lost[0]}", LOOK)


async def hanging(trial: Trial) -> None:
    """Two servers, one after the other, with different limits."""
    for seconds in LIMITS:
        await give_up_after(trial, seconds)


async def give_up_after(trial: Trial, seconds: float) -> None:
    """The mail server accepts only one email, in the middle of the wait."""
    inbox = await trial.inbox()
    inbox.gate.clear()
    inbox.gates[SENT] = asyncio.Event()
    settings = {"DRAIN_SECONDS": str(seconds), "MOVABLE_CLOCK": "1"}
    server = await trial.start_server("server.py", SMTP_URL=inbox.smtp_url, **settings)
    await server.ask("drain", range(HANGING))
    await settled(lambda: len(inbox.begun), HANGING)
    server.program.terminate()
    await until(lambda: gave_up(server) or not listens(server), END_SECONDS)
    await check_wait(server, seconds, inbox)
    await check_named(server, seconds)


async def check_wait(server: Server, seconds: float, inbox: Inbox) -> None:
    """Raises Failed if the server gives up too early or too late, by its own clock."""
    expected = f"with DRAIN_SECONDS={seconds:g}, the server gives up {seconds:g} s after SIGTERM"
    if await until(lambda: gave_up(server), HOLD_SECONDS):  # also the time until drain() has begun
        raise Failed(expected, f"it gave up at once; {server.program.tail()}", LOOK)
    for early in EARLY:
        server.program.move_clock(early * seconds - server.program.moved_seconds)
        if await until(lambda: gave_up(server), HOLD_SECONDS / 2):
            raise Failed(
                expected, f"it gave up after {early * seconds:.0f} s or earlier; {server.program.tail()}", LOOK
            )
        inbox.gates[SENT].set()
        await settled(lambda: len(inbox.arrivals), 1)
    server.program.move_clock(LATE * seconds - server.program.moved_seconds)
    if not await until(lambda: gave_up(server), END_SECONDS):
        raise Failed(expected, f"it still runs after {LATE * seconds:.0f} s; {server.program.tail()}", LOOK)


def gave_up(server: Server) -> bool:
    """Whether the server has printed a line `lost ID`, or has ended."""
    return server.program.status is not None or bool(re.search("^lost ", server.program.text(), re.MULTILINE))


async def check_named(server: Server, seconds: float) -> None:
    status = await ended(server, f"{seconds:g} s have passed")
    check_end(status, server, "the mail server hung")
    ids = sorted(record[5] for record in server.records if record[0])
    named = sorted(re.findall(r"^lost (\S+)$", server.program.text(), re.MULTILINE))
    if ids != named:
        missing = len(set(ids) - set(named))
        happened = f"{len(named)} lines, {missing} of the {len(ids)} ids are missing; {server.program.tail()}"
        raise Failed("one line `lost ID` for each email that was not sent", happened, LOOK)


async def idle(trial: Trial) -> None:
    server = await trial.start_server("server.py", SMTP_URL="smtp://127.0.0.1:9", DRAIN_SECONDS=LONG)
    server.program.terminate()
    check_end(await ended(server, "no email is in flight"), server, "no email was in flight")


def listens(server: Server) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1.0):
        return True
    return False


async def ended(server: Server, when: str) -> int:
    """The exit status of the server, which must end now. Raises Failed if it does not."""
    if not await until(lambda: server.program.status is not None, END_SECONDS):
        happened = f"it still runs {END_SECONDS:g} s later; {server.program.tail()}"
        raise Failed(f"the server ends as soon as {when}", happened, LOOK)
    return await server.program.wait()


def check_end(status: int, server: Server, when: str) -> None:
    if status:
        raise Failed(f"the server ends with status 0 when {when}", f"status {status}; {server.program.tail()}", LOOK)
