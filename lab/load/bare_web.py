"""`python -m lab.load.bare_web`: the web servers to compare with. Each answers like a strategy, but does no work.

handler   one aiohttp handler on uvloop: shows what the web server itself costs
raw       fixed bytes, without parsing HTTP: shows how fast the load generator can send requests

Prints its port.
"""

import argparse
import asyncio
import json
from typing import cast

from aiohttp import web

from common.processes.process import run, stop_requested
from lab.load.http import TEXT

EMAIL = {"to": "reader@example.com", "subject": "Hello", "text": TEXT}
CONTENT_TYPE = "application/json; charset=utf-8"


def body(status: int) -> bytes:
    members = {"email": EMAIL, "id": f"<{'0' * 32}@example.com>", "status": "sent" if status == 200 else "accepted"}
    return json.dumps(members, indent=2).encode() + b"\n"


async def serve_handler(status: int) -> None:
    answer = body(status)

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=answer, status=status, headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/{to}/{subject}/{text}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    [address, *_] = runner.addresses
    print(address[1], flush=True)
    await stop_requested()
    await runner.cleanup()


class Raw(asyncio.Protocol):
    """Answers each end of a request head. The requests of lab/load/http.py have no bodies."""

    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        CONTENT_TYPE.encode(),
        len(body(200)),
        body(200),
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self._transport.write(self.ANSWER)


async def serve_raw() -> None:
    server = await asyncio.get_running_loop().create_server(Raw, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop_requested()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="The web servers to compare with.")
    parser.add_argument("kind", choices=("handler", "raw"))
    parser.add_argument("--status", type=int, default=200, help="of the handler's answers: 200 sent, 202 accepted")
    options = parser.parse_args()
    run(serve_handler(options.status) if options.kind == "handler" else serve_raw())


if __name__ == "__main__":
    main()
