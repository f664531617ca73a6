"""`python -m common.services.inbox`: serve until stopped or until no terminal uses the inbox any more."""

import logging
import os

from common.address import cannot_listen, free_port, url_of
from common.http.serving import start
from common.processes.process import run
from common.services.inbox.faults import Dial
from common.services.inbox.smtp import Handler, SmtpServer
from common.services.inbox.store import Store
from common.services.inbox.web import LOOPBACK, create_app
from common.services.service import announce, claim, stop_or_abandoned
from common.settings import Settings, exit_with_usage_error, read_settings

log = logging.getLogger(__name__)


async def main(settings: Settings) -> None:
    store, dial = Store(), Dial()
    smtp = SmtpServer(Handler(store, dial))
    await smtp.listen(LOOPBACK, _checked("INBOX_SMTP_PORT", settings.inbox_smtp_port))
    runner = await start(
        create_app(store, dial, settings.page_password), LOOPBACK, _checked("INBOX_PORT", settings.inbox_port)
    )
    page_port = runner.addresses[0][1]
    log.info("the inbox accepts mail on %s port %s; its page is %s", LOOPBACK, smtp.port, url_of(LOOPBACK, page_port))
    announce(claim(settings.data_dir, "inbox"), pid=os.getpid(), inbox_smtp_port=smtp.port, inbox_port=page_port)
    reason = await stop_or_abandoned(settings.data_dir, "inbox")
    log.info("stopping (%s)", reason)
    smtp.close()
    await runner.cleanup()


def _checked(setting: str, port: int) -> int:
    """Return the port if it is free; else end the program with one line that names the setting and exit status 2."""
    try:
        return free_port(LOOPBACK, port) if port else 0
    except OSError as error:
        exit_with_usage_error(cannot_listen(LOOPBACK, port, error, setting))


if __name__ == "__main__":
    run(main(read_settings()))
