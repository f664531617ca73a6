"""The worker: what jobs of each class do, and how many run at a time."""

import asyncio
import logging

from common.mail.emails import email_from_members
from common.mail.mailer import Mailer
from common.processes.process import stop_requested
from common.settings import Settings
from resque import Definition, Scaling, Worker, open_connections

log = logging.getLogger(__name__)


async def test(arguments: dict[str, str]) -> None:
    await asyncio.sleep(0.6)
    log.info("done: %s", arguments["title"])


async def work(settings: Settings) -> None:
    async with open_connections(settings.redis) as connections, Mailer(settings, patient=True) as mailer:

        async def send_email(arguments: dict[str, str]) -> None:
            await mailer.send(email_from_members(arguments, settings.id_domain))

        definitions = {"test": Definition(test), "sendEmail": Definition(send_email, attempts=3, base_seconds=2)}
        await Worker(connections, ["first"], definitions, scaling=Scaling(2, 2)).run(stop_requested)
