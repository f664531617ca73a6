"""`python -m lab.faults.exiting_worker`: a worker of strategy 5 that also runs jobs which call sys.exit.

It sends emails like the strategy's own worker. From a queue of its own it takes the jobs named in EXITS: one calls
sys.exit on the event loop, one in a thread, one in the process pool. Each of these jobs must fail without ending the
worker. Prints "ready" when it takes jobs.
"""

import sys
from typing import Any

import resque
from common.mail.emails import BadEmail, email_from_members
from common.mail.errors import Refused
from common.mail.mailer import Mailer
from common.mail.sender import PatientSender
from common.processes.process import run, stop_requested
from common.settings import Settings, read_settings

EXIT_QUEUE, EMAIL_QUEUE = "exitQueue", "emailQueue"
STATUS = 2  # the exit status of a command after a usage error


async def exit_on_loop(*arguments: object) -> None:
    sys.exit(STATUS)


def exit_off_loop(*arguments: object) -> None:
    sys.exit(STATUS)


EXITS: dict[str, dict[str, Any]] = {
    "ExitOnLoop": {"perform": exit_on_loop},
    "ExitInThread": {"perform": exit_off_loop},
    "ExitInProcess": {"perform": exit_off_loop, "in_process": True},
}


async def work(settings: Settings) -> None:
    exits = {name: resque.Definition(**how, attempts=1) for name, how in EXITS.items()}
    async with resque.open_connections(settings.redis) as connections, Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)

        async def send_email(arguments: object) -> None:
            try:
                await sender.send(email_from_members(arguments, settings.id_domain))
            except (BadEmail, Refused) as error:
                raise resque.Permanent(str(error)) from error

        emails = resque.Definition(send_email, attempts=settings.attempts, schedule=settings.retry_pause)
        worker = resque.Worker(
            connections,
            [EXIT_QUEUE, EMAIL_QUEUE],
            {"sendEmail": emails} | exits,
            lease_seconds=settings.lease_seconds,
            drain_seconds=settings.drain_seconds,
            hook=lambda event: print("ready", flush=True) if type(event).__name__ == "Started" else None,
        )
        try:
            await worker.run(stop_requested)
        finally:
            await sender.close()


if __name__ == "__main__":
    run(work(read_settings()))
