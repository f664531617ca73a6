"""SIGTERM with emails in flight: first to a mail server that is slow, then to one that hangs."""

import asyncio
import re
import socket
import time
from contextlib import suppress

from workshop.program import Failed
from workshop.trial import Server, Trial, settled, until

EMAILS = 12
HANGING = 15
HOLD_SECONDS = 1.5  # longer than a mailer takes to say goodbye on open sessions
PACE_SECONDS = 0.03
LONG = "120"  # DRAIN_SECONDS where this limit is not reached
PATIENT_SECONDS, QUICK_SECONDS = 6.0, 1.0  # DRAIN_SECONDS of the two servers whose mail server hangs
APART_SECONDS = 2.0  # between the SIGTERM of the patient server and that of the quick one, which gives up first
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
    """Two servers with different limits. The one with the longer limit gets its SIGTERM first, and gives up last."""
    inbox = await trial.inbox()
    inbox.gate.clear()
    patient, quick = [
        await trial.start_server("server.py", SMTP_URL=inbox.smtp_url, DRAIN_SECONDS=str(seconds))
        for seconds in (PATIENT_SECONDS, QUICK_SECONDS)
    ]
    for server in (patient, quick):
        await server.ask("drain", range(HANGING))
    await settled(lambda: len(inbox.begun), 2 * HANGING)
    patient_began = time.monotonic()
    patient.program.terminate()
    await asyncio.sleep(APART_SECONDS)
    quick_began = time.monotonic()
    quick.program.terminate()
    waited = await check_wait(quick, QUICK_SECONDS, quick_began)
    if gave_up(patient):
        expected = "the server with DRAIN_SECONDS={:g} gives up before the one with DRAIN_SECONDS={:g}"
        happened = f"it gave up only {waited:.1f} s after SIGTERM"
        raise Failed(expected.format(QUICK_SECONDS, PATIENT_SECONDS), happened, LOOK)
    await check_named(quick, QUICK_SECONDS)
    await check_wait(patient, PATIENT_SECONDS, patient_began)
    await check_named(patient, PATIENT_SECONDS)


async def check_wait(server: Server, seconds: float, began: float) -> float:
    """Wait until the server gives up, and return how many seconds that took.

    Raises Failed if the server gives up too early or too late.
    """
    in_time = await until(lambda: gave_up(server), seconds + END_SECONDS)
    waited = time.monotonic() - began
    expected = f"with DRAIN_SECONDS={seconds:g}, the server gives up {seconds:g} s after SIGTERM"
    if not in_time:
        raise Failed(expected, f"it still runs after {waited:.0f} s; {server.program.tail()}", LOOK)
    if waited < 0.9 * seconds:  # a slow machine makes it longer, never shorter
        raise Failed(expected, f"it gave up after {waited:.1f} s", LOOK)
    return waited


def gave_up(server: Server) -> bool:
    """Whether the server has printed a line `lost ID`, or has ended."""
    return server.program.status is not None or bool(re.search("^lost ", server.program.text(), re.MULTILINE))


async def check_named(server: Server, seconds: float) -> None:
    status = await ended(server, f"{seconds:g} s have passed")
    check_end(status, server, "the mail server hung")
    ids = sorted(record[5] for record in server.records)
    named = sorted(re.findall(r"^lost (\S+)$", server.program.text(), re.MULTILINE))
    if ids != named:
        missing = len(set(ids) - set(named))
        happened = f"{len(named)} lines, {missing} of the {HANGING} ids are missing; {server.program.tail()}"
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
