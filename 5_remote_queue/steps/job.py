"""What the three steps share: sending the email of a job, and the record of a failed job."""

import logging
import time

from common.mail.emails import email_from_members
from common.mail.sender import PatientSender
from resque.wire import BadJob, failure, read_job

from ..jobs import QUEUE

log = logging.getLogger(__name__)


async def send(sender: PatientSender, domain: str, raw: bytes) -> None:
    """Send the email of this job. Raises BadJob, BadEmail or a SendError."""
    job = read_job(raw)
    email = email_from_members(job.args[0] if job.args else None, domain)
    await sender.send(email)


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
