"""What the three steps share: ten slots that each work on one job at a time, and the email of a job."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from common.emails import email_from_members
from common.log import OncePerSecond
from common.process import stop_requested
from common.redis_client import reason
from common.sender import PatientSender
from common.settings import Settings
from common.tasks import end_tasks

from ..jobs import QUEUE
from ..resque.wire import BadJob, failure, read_job

SLOTS = 10
POLL_SECONDS = 0.1  # between two looks into an empty queue; the full design waits without asking
REDIS_SECONDS = 1.0  # between two attempts to reach Redis

log = logging.getLogger(__name__)
redis_log = OncePerSecond(log)


async def run_slots(settings: Settings, work_one: Callable[[int], Awaitable[bool]]) -> None:
    """Call `work_one(slot)` in every slot, again and again, until the process is stopped. False: the queue was empty.

    After SIGTERM the slots take no new job and have DRAIN_SECONDS to finish the one that they hold.
    """
    stop = asyncio.Event()
    slots = [asyncio.create_task(_run_slot(number, work_one, stop)) for number in range(SLOTS)]
    stopping = asyncio.create_task(stop_requested())
    await asyncio.wait([stopping, *slots], return_when=asyncio.FIRST_COMPLETED)  # a slot ends early only by an error
    log.info("stopping")
    stop.set()
    ended, _ = await asyncio.wait(slots, timeout=settings.drain_seconds)
    await end_tasks([stopping, *slots])
    for slot in ended:
        slot.result()  # raises the error of a slot: the process ends, and the runner starts it again


async def _run_slot(number: int, work_one: Callable[[int], Awaitable[bool]], stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            pause = 0.0 if await work_one(number) else POLL_SECONDS
        except (RedisError, OSError) as error:
            redis_log.warning("%s", reason(error))
            pause = REDIS_SECONDS
        if pause and not stop.is_set():
            await asyncio.sleep(pause)


async def send(sender: PatientSender, domain: str, raw: bytes) -> None:
    """Send the email of this job. Raises BadJob, BadEmail or a SendError."""
    job = read_job(raw)
    email = email_from_members(job.args[0] if job.args else None, domain)
    await sender.send(email)
    log.info("sent %s", email.id)


def failed_record(raw: bytes, worker: str, error: Exception) -> str:
    """An element of the list `resque:failed`."""
    log.error("failed: %s: %s", type(error).__name__, error)
    try:
        job = read_job(raw, QUEUE)
    except BadJob:
        job = None
    text = raw.decode(errors="replace")
    facts = {"queue": QUEUE, "worker": worker, "exception": type(error).__name__, "error": str(error)}
    return failure(job, **facts, backtrace=[], now=time.time(), raw=text)
