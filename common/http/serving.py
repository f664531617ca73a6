"""Serving an application: opening the port, and stopping in order."""

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

from asynckit.web.pages import error_json
from common.address import cannot_listen, url_of
from common.http.connections import Connections
from common.http.guard import PASSWORD, exposure
from common.http.siblings import SHARES_PORT
from common.processes.process import stop_requested
from common.processes.role import Role
from common.settings import Settings, exit_with_usage_error

IDLE_SECONDS = 30.0  # how long a connection may take to send the headers of its first or next request
UNREAD_SECONDS = 30.0  # how long a client may read nothing while an answer is sent to it
FINISH_SECONDS = 10.0  # how long running requests may take after the stop signal

_FULL_BODY = b'{"error": {"reason": "too many connections are open"}}\n'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b"
) % (len(_FULL_BODY), _FULL_BODY)

log = logging.getLogger(__name__)


def web_role(create_app: Callable[[Settings], web.Application]) -> Role:
    """The role that serves this application where HOST and PORT say."""
    return lambda settings: serve(create_app(settings), settings.host, settings.port)


async def serve(
    app: web.Application, host: str, port: int, stop: Callable[[], Awaitable[str]] = stop_requested
) -> None:
    """Serve until `stop` returns the reason to stop; then accept nothing new, finish the running requests, and close.

    Ends the program with one line and exit status 2 if the address cannot be bound.
    """
    runner = await start(app, host, port)
    [address, *_] = runner.addresses
    log.info("listening on %s", url_of(host, address[1]))
    if warning := exposure(host, PASSWORD in app):
        log.warning(warning)
    reason = await stop()
    log.info("stopping (%s)", reason)
    await runner.cleanup()
    log.info("stopped")


async def start(app: web.Application, host: str, port: int) -> web.AppRunner:
    """Open the port (0: any free one). `runner.addresses` has its number, `runner.cleanup()` closes it."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=FINISH_SECONDS)
    await runner.setup()
    try:
        await _JsonSite(runner, host, port, reuse_port=app.get(SHARES_PORT)).start()
    except OSError as error:
        await runner.cleanup()
        exit_with_usage_error(cannot_listen(host, port, error))
    return runner


class _JsonRequestHandler(web.RequestHandler):
    """Answers requests that aiohttp's parser refuses with JSON too, and without a traceback in the log.

    The parser refuses a URL over its limit and invalid HTTP. aiohttp's keepalive_timeout runs from the opening of a
    connection, and from each answer, until the headers of the next request are complete. So it limits both idle
    connections and slow headers.
    """

    __slots__ = ("_connections",)

    def __init__(self, server: web.Server, connections: Connections, loop: asyncio.AbstractEventLoop) -> None:
        no_log = cast(logging.Logger, None)
        super().__init__(server, loop=loop, access_log=no_log, keepalive_timeout=IDLE_SECONDS, auto_decompress=False)
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._connections.admit(self):
            limit_unread(transport.get_extra_info("socket"))
            super().connection_made(transport)
            return
        self._force_close = True  # so that aiohttp ignores what the client sends
        cast(asyncio.Transport, transport).write(_FULL)
        transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def is_idle(self) -> bool:
        """Whether the connection waits for the headers of a request."""
        return self._waiter is not None and not self._waiter.done()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        response = error_json(status, _first_line(message), field="url")
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answer in JSON if aiohttp raises an error before any middleware runs: 417 for an unknown Expect header."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = error_json(resp.status, resp.text or resp.reason)
        return await super().finish_response(request, resp, start_time)


def _first_line(message: str | None) -> str:
    return (message or "invalid HTTP").strip().partition("\n")[0].rstrip(":")


def limit_unread(connection: socket.socket) -> None:
    """Let the kernel close the connection when the client has read nothing for UNREAD_SECONDS (tcp(7), only Linux)."""
    if sys.platform == "linux":
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))


class _JsonSite(web.TCPSite):
    async def start(self) -> None:
        await web.BaseSite.start(self)
        server, loop = self._runner.server, asyncio.get_running_loop()
        assert server is not None

        connections = Connections()
        self._server = await loop.create_server(
            lambda: _JsonRequestHandler(server, connections, loop),
            self._host,
            self._port,
            backlog=connections.backlog,
            reuse_port=self._reuse_port,
        )
