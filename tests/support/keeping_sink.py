"""`python -m tests.support.keeping_sink PORT FILE`: a mail server whose record survives a kill.

It writes each Message-ID to the file before it answers 250. (lab/harness/inbox.py does that too, but cannot share the
port that the test has reserved.)
"""

import asyncio
import os
import re
import sys
from functools import partial
from typing import Any

from aiosmtpd.smtp import SMTP

MESSAGE_ID = re.compile(rb"^Message-ID: (<[^>]+>)", re.M | re.I)


class Keeper:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        found = MESSAGE_ID.search(envelope.content)
        os.write(self._file, (found[1] if found else b"<none>") + b"\n")
        return "250 kept"


async def main(port: int, path: str) -> None:
    loop, keeper = asyncio.get_running_loop(), Keeper(path)
    sessions = partial(SMTP, keeper, hostname="keeper", loop=loop)
    server = await loop.create_server(sessions, "127.0.0.1", port, reuse_port=True)  # the test has reserved the port
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
