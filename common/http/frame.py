"""The web frame around every strategy: reading the email, answering, errors as JSON, counters, the page at `/`.

A strategy provides three functions, and the frame does the rest:

    handle(request)  reads the email, hands it over, answers
    stats(app)       returns the figures that this strategy knows, such as `waiting` and `in_flight`.
                     `oldest_wait_seconds` is the age of the oldest email that waits or is in flight (0 if none does)
    health(app)      raises if no email could be accepted right now
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from asynckit.log_limit import OncePerSecond
from asynckit.web.pages import Handler, add_assets, error_json, html_page, pretty_json
from common.http import metrics, sources
from common.http.guard import HOST, PASSWORD, check_not_linked, check_origin
from common.http.metrics import COUNTERS, GAUGES, prometheus_metrics
from common.http.siblings import SHARES_PORT, Siblings, total
from common.http.sources import address_of
from common.mail.emails import BadEmail, Email, email_from_path
from common.mail.errors import CannotAccept, InDoubt, LoginFailed, NoAnswer, Refused, SendError, TimedOut
from common.processes.chapter import chapter_module
from common.settings import Settings

EMAIL_PATH = "/{email:[^/]*/[^/]*/[^/]*}"
PAGES = Path(__file__).parent / "pages"
BODY_SECONDS = 10.0  # for the whole body of a request; our forms send less than a kilobyte

SETTINGS = web.AppKey("settings", Settings)
LINKS = web.AppKey("links", list[str])
"""The paths of a strategy's own pages, which the page at `/` links to."""
BROKEN_BODY = (web.RequestPayloadError, HttpProcessingError, ConnectionError)
"""The errors raised while the body of a request is read, if the body is invalid or the client has disconnected."""
_EMAIL = web.RequestKey("email", Email)

Stats = metrics.Stats

log = logging.getLogger(__name__)
_no_answer_log = OncePerSecond(log)


def web_frame(
    settings: Settings,
    strategy: str | None,
    handle: Handler,
    stats: Callable[[web.Application], Awaitable[Stats]],
    health: Callable[[web.Application], Awaitable[None]],
) -> web.Application:
    """Create the application of one strategy; `strategy` is the name of its folder."""
    if not strategy:
        raise ValueError("a strategy must be a package")
    app = web.Application(middlewares=[json_errors])
    app[SETTINGS] = settings
    app[HOST] = settings.host
    if settings.page_password is not None:
        app[PASSWORD] = settings.page_password
    app[LINKS] = []
    figures = _Figures(app, strategy, stats)

    async def show_stats(request: web.Request) -> web.Response:
        every, _ = await figures.all()
        return pretty_json(every)

    async def show_metrics(request: web.Request) -> web.Response:
        return prometheus_metrics(strategy, *await figures.all())

    async def show_health(request: web.Request) -> web.Response:
        try:
            await health(app)
        except (SendError, CannotAccept) as error:
            return pretty_json({"status": "unavailable", "reason": str(error)}, status=503)
        return pretty_json({"status": "ok"})

    async def show_page(request: web.Request) -> web.Response:
        number, _, name = strategy.partition("_")
        return html_page(
            "strategy.html",
            PAGES,
            number=number,
            name=name.replace("_", " "),
            folder=strategy,
            inbox=settings.inbox_page,
            links=app[LINKS],
        )

    async def show_chapter(request: web.Request) -> web.StreamResponse:
        return source_page(f"{strategy}/README.md", strategy)

    async def show_source(request: web.Request) -> web.StreamResponse:
        return source_page(request.match_info["name"].rstrip("/"), strategy)

    async def handle_email(request: web.Request) -> web.StreamResponse:
        check_not_linked(request)
        try:
            response = await handle(request)
        except (BadEmail, SendError, CannotAccept) as error:
            return answer_error(request, error)
        figures.accepted += 1
        return response

    app.router.add_get(EMAIL_PATH, handle_email, allow_head=False)  # a HEAD must not send mail
    app.router.add_get("/", show_page)
    app.router.add_get("/stats", show_stats)
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/health", show_health)
    app.router.add_get("/chapter", show_chapter)
    app.router.add_get(address_of("{name:.+}"), show_source)
    add_assets(app, PAGES / "assets")
    if settings.siblings is not None:
        figures.add_up(settings.siblings)
    return app


class _Figures:
    """The figures of `/stats`: what the strategy knows, and what this server process and its siblings have counted."""

    def __init__(
        self, app: web.Application, strategy: str, stats: Callable[[web.Application], Awaitable[Stats]]
    ) -> None:
        self.accepted = 0
        self._app = app
        self._strategy = strategy
        self._stats = stats
        self._siblings: Siblings | None = None

    def add_up(self, folder: Path) -> None:
        """Share the port and the figures with the server processes that meet in this folder."""
        siblings = self._siblings = Siblings(folder, self._counted_here)
        self._app[SHARES_PORT] = True
        self._app.on_startup.append(siblings.listen)  # after the start of the strategy, which the figures need
        self._app.on_shutdown.append(siblings.close)

    async def _counted_here(self) -> Stats:
        """If the server is the only role, each process counts everything itself. Otherwise the figures of the strategy
        already cover all processes.
        """
        own = {"accepted": self.accepted}
        return own | await self._stats(self._app) if chapter_module(self._strategy).ROLES == ("server",) else own

    async def all(self) -> tuple[Stats, dict[str, Stats]]:
        """All figures, and the figures of each single server process if there are several."""
        known = {"accepted": self.accepted, **await self._stats(self._app)}
        servers: dict[str, Stats | None] = {} if self._siblings is None else await self._siblings.figures()
        if servers:
            known |= total(list(servers.values())) | {"servers": len(servers)}
        # A figure that the strategy does not return is unknown: null, not 0.
        every = {"strategy": self._strategy, **dict.fromkeys(COUNTERS + GAUGES), **known}
        return every, {server: own for server, own in servers.items() if own is not None}


def read_email(request: web.Request) -> Email:
    """Read the email from the path. Raises BadEmail, which is answered with 400."""
    url = request.rel_url
    if url.raw_path.count("/") != 3:
        raise web.HTTPNotFound
    email = email_from_path(url.raw_path, request.app[SETTINGS].id_domain, url.path_safe)
    request[_EMAIL] = email
    return email


def answer(email: Email, status: str) -> web.Response:
    """Answer that the email was "sent" (200) or "accepted" (202)."""
    body = {"email": email.to_dict(), "id": email.id, "status": status}
    return pretty_json(body, status=200 if status == "sent" else 202)


def answer_error(request: web.Request, error: BadEmail | SendError | CannotAccept) -> web.Response:
    """Answer that the email was not sent or not handed over, with the reason."""
    if isinstance(error, BadEmail):
        return pretty_json({"error": {"field": error.field, "reason": error.reason}}, status=400)
    email = request[_EMAIL]
    if isinstance(error, CannotAccept):
        response = pretty_json({"email": email.to_dict(), "error": {"reason": str(error)}}, status=503)
        response.headers[hdrs.RETRY_AFTER] = str(error.retry_after)
        return response
    kind = type(error).__name__
    if isinstance(error, NoAnswer):
        _no_answer_log.warning("%s to %s may still be sent: %s", email.id, email.to, error)
    else:
        log.warning("not sent %s to %s: %s: %s", email.id, email.to, kind, error)
    body = {"email": email.to_dict(), "id": email.id, "error": {"reason": str(error), "kind": kind}}
    return pretty_json(body, status=_status_of(error))


def _status_of(error: SendError) -> int:
    match error:
        case Refused() | LoginFailed():
            return 502  # HTTP's status for a bad answer of the server behind this one
        case TimedOut() | InDoubt():
            return 504
        case _:
            return 503


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests that another site's page made the browser send, and answer every error as JSON."""
    try:
        check_origin(request)
        if request.can_read_body:
            await _read_body(request)
        return await handler(request)
    except CannotAccept as error:  # raised by /stats if the process that has the figures does not answer
        return error_json(503, str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = error_json(error.status, _reason(error))
        for name in (hdrs.ALLOW, hdrs.WWW_AUTHENTICATE):
            if name in error.headers:
                response.headers[name] = error.headers[name]
        if error.status == 408:
            response.force_close()
        return response
    except Exception:
        log.exception("error while answering %s %s", request.method, request.rel_url.path)
        return error_json(500, "an error in this program; its log has the traceback")


async def _read_body(request: web.Request) -> None:
    """Read the whole body before the handler runs.

    Raises HTTPRequestTimeout, HTTPBadRequest, HTTPRequestEntityTooLarge.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not arrive within {BODY_SECONDS:g} s") from None
    except BROKEN_BODY:
        raise web.HTTPBadRequest(text="the body does not match its headers") from None


def _reason(error: web.HTTPException) -> str:
    if error.status == 404:
        return "nothing here; an email is sent by GET /TO/SUBJECT/TEXT, three percent-encoded parts"
    if error.status == 405:
        return "only GET is allowed" if error.headers.get(hdrs.ALLOW) == "GET" else "this method is not allowed"
    return error.text or error.reason


def source_page(name: str, strategy: str) -> web.StreamResponse:
    """The page of a file or folder of the repository. Raises HTTPNotFound."""
    if (path := sources.find(name)) is None:
        raise web.HTTPNotFound
    if path.suffix in (
        ".png",
        ".svg",
    ):  # a picture of a page; opened directly, it runs no scripts
        return web.FileResponse(
            path, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        )
    page, (before, after) = sources.page_of(path), sources.neighbours(path)
    beside = [
        (word, address_of(f"{near.parent.name}/README.md"), near.parent.name.replace("_", " "))
        for word, near in (("previous", before), ("next", after))
        if near
    ]
    return html_page("source.html", PAGES, page=page, beside=beside, strategy=strategy)
