"""The check is the master: it keeps the emails, and kills the worker while it sends."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.load.steady import Record
from workshop.inbox import Inbox
from workshop.program import Failed, Program
from workshop.trial import Trial, accepted, new_email, settled, until

EMAILS = 12
TAG = "ack"
PACE_SECONDS = 0.02
QUIET_SECONDS = 0.4  # longer than the pause between two attempts
REFUSALS = 7  # of an email that is refused for now: a solution whose pauses become longer needs six seconds for them
MANY_REFUSALS = 30  # more than a loop with a fixed number of attempts makes if its pauses are as short as PAUSE_SECONDS
REFUSED_FOR_NOW = 12  # emails
MORE_SECONDS = 4.0  # for these
MOVES, MOVE_PAUSE = 120, 0.05  # seconds of the check, in which an email is tried again
MOVE_SECONDS, OPEN_SECONDS = 10.0, 60.0  # of the worker's clock, less than the limit for an answer of the mail server
SHORTEST_PAUSE = 0.05  # seconds
LOOK = "worker.py, work_on()"


class Master:
    """Keeps each email until the worker has acknowledged it, and passes all that it keeps to each new worker."""

    def __init__(self, trial: Trial, inbox: Inbox, socket: Path) -> None:
        self.kept: dict[str, dict[str, str]] = {}
        self.told: Counter[str] = Counter()
        """How often each email was acknowledged, done or failed."""
        self.failed: set[str] = set()
        self.records: list[Record] = []
        self._trial = trial
        self._inbox = inbox
        self._socket = socket
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._socket)

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    def accept(self, numbers: range) -> None:
        for number in numbers:
            email = new_email(TAG, number)
            self.kept[email["id"]] = email
            self.records.append(accepted(number, email["id"]))

    async def start_worker(self) -> Program:
        environment = {"MASTER": str(self._socket), "SMTP_URL": self._inbox.smtp_url, "MOVABLE_CLOCK": "1"}
        return await self._trial.start("worker.py", ready="ready", **environment)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        for email in self.kept.values():
            writer.write(json.dumps({"send": email}).encode() + b"\n")
        try:
            async for line in reader:
                [(what, email_id)] = json.loads(line).items()
                self.told[email_id] += 1
                self.kept.pop(email_id, None)
                if what == "failed":
                    self.failed.add(email_id)
        except (ConnectionError, asyncio.CancelledError):
            pass


async def check(trial: Trial) -> str:
    inbox = await trial.inbox()
    with TemporaryDirectory() as folder:
        master = Master(trial, inbox, Path(folder) / "master")
        await master.open()
        try:
            await with_kills(trial, inbox, master)
            await with_refusals(trial, inbox, master)
        finally:
            await master.close()
    return f"{EMAILS} emails survived a SIGKILL to the worker, and refusals were handled"


async def with_kills(trial: Trial, inbox: Inbox, master: Master) -> None:
    inbox.gate.clear()
    inbox.pace_seconds = PACE_SECONDS
    master.accept(range(EMAILS))
    first = await master.start_worker()
    await until(lambda: bool(inbox.begun))
    await settled(lambda: len(inbox.begun) + len(master.told), 1, quiet=0.1)
    await first.kill()
    second = await master.start_worker()
    inbox.gate.set()
    await settled(lambda: len(inbox.arrivals), EMAILS, quiet=0.2, limit=5)
    found = trial.account(master.records, inbox, TAG)
    trial.measured = float(found.lost)
    trial.check_account(found, f"{LOOK}: when does the master forget an email?")
    await until(lambda: not master.kept)
    if master.kept:
        told = f"{len(master.kept)} of {EMAILS} were sent but not acknowledged"
        raise Failed("each email that was sent is acknowledged, so that the master forgets it", told, LOOK)
    await second.kill()


async def with_refusals(trial: Trial, inbox: Inbox, master: Master) -> None:
    inbox.pace_seconds = 0.0
    for_now = range(100, 100 + REFUSED_FOR_NOW)  # the first ones, in case the others wait for them
    others = range(for_now.stop, for_now.stop + 3)
    for_good = trial.random.choice(others)
    codes = {f"{TAG}-{number}@example.com": 451 for number in for_now} | {f"{TAG}-{for_good}@example.com": 550}
    open_again = False
    inbox.refuse = lambda to, attempt: 0 if open_again and codes.get(to) == 451 else codes.get(to, 0)
    before = Counter(master.told)
    master.accept(range(for_now.start, others.stop))
    worker = await master.start_worker()
    tries = Counter[str]()

    def refusals() -> list[int]:
        return [fault.at for fault in inbox.refusals if fault.to == f"{TAG}-{for_now[0]}@example.com"]

    await settled(lambda: len(refusals()), REFUSALS, quiet=0, limit=5)
    await until(lambda: len(refusals()) >= MANY_REFUSALS, MORE_SECONDS)
    await settled(lambda: len(inbox.arrivals), EMAILS + 2, limit=2)
    tries.update(fault.what for fault in inbox.refusals)
    ids = {number: email_id for number, *_, email_id in master.records}
    if ids[for_now[0]] not in master.kept:
        happened = f"it was acknowledged after {len(refusals())} attempts, all of them refused"
        raise Failed("an email that is refused for now is not acknowledged yet", happened, LOOK)
    if len(refusals()) < REFUSALS:
        happened = f"it was tried {len(refusals())} times, and refused each time"
        raise Failed("an email that is refused for now is tried again, as often as necessary", happened, LOOK)
    check_pauses(refusals())
    if len(inbox.arrivals) < EMAILS + 2:
        happened = f"{len(inbox.arrivals) - EMAILS} of 2 were sent while {REFUSED_FOR_NOW} were refused for now"
        raise Failed("the other emails do not wait for those that are refused for now", happened, LOOK)
    if tries["550"] != 1:
        raise Failed("an email that is refused for good is tried once", f"it was tried {tries['550']} times", LOOK)
    if ids[for_good] not in master.failed:
        raise Failed('a 550 is reported as "failed"', f"the master kept it; {worker.tail()}", LOOK)
    await move_clock(worker, MOVE_SECONDS, lambda: False)
    open_again = True
    await move_clock(worker, OPEN_SECONDS, lambda: len(inbox.arrivals) >= EMAILS + 2 + REFUSED_FOR_NOW)
    records = [record for record in master.records if record[0] != for_good]
    trial.check_account(trial.account(records, inbox, TAG), LOOK)
    await until(lambda: not master.kept)
    if again := [ids[n] for n in range(for_now.start, others.stop) if (master.told - before)[ids[n]] != 1]:
        count = master.told[again[0]]
        raise Failed("each email is acknowledged once", f"{again[0]} was acknowledged {count} times", LOOK)


async def move_clock(worker: Program, seconds: float, enough: Callable[[], bool]) -> None:
    """Move the clock by a little, again and again, because each move ends one pause."""
    for _ in range(MOVES):
        if await until(enough, MOVE_PAUSE):
            break
        worker.move_clock(seconds)
    await until(enough, MOVE_PAUSE)


def check_pauses(refused: list[int]) -> None:
    """`refused` are the moments of the refusals, in ns. A slow machine makes the pauses longer, never shorter."""
    shortest = min(after - before for before, after in pairwise(refused)) / 1e9
    if shortest < SHORTEST_PAUSE:
        happened = f"the shortest pause between two of {len(refused)} attempts was {shortest * 1000:.1f} ms"
        raise Failed("an email that is refused for now is tried again after a pause", happened, LOOK)
