"""The web server of the lab: the page, its event stream, and `POST /do`. It listens on loopback only."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from asynckit.tasks import background, end_tasks, keep_running
from asynckit.web.event_stream import enable_event_streams, stream_events
from asynckit.web.page_token import check_token, page_token
from asynckit.web.pages import add_assets, error_json, html_page, pretty_json
from common.http.frame import json_errors
from common.http.guard import HOST
from lab.browser.experiments import EXPERIMENTS, Experiments
from lab.browser.feed import Feed
from lab.browser.laboratory import CannotAct, Laboratory, subjects
from lab.browser.page_requests import (
    BODY,
    AddWorker,
    Heal,
    RunExperiment,
    SendBurst,
    SendSignal,
    SetLoad,
    Switch,
    TurnDial,
    Wanted,
)
from lab.faults.promises import STEPS, SUBJECTS

PAGE = Path(__file__).parent / "page"
LOOPBACK = "127.0.0.1"

log = logging.getLogger(__name__)


class LabPage:
    def __init__(self, laboratory: Laboratory) -> None:
        self._laboratory = laboratory
        self._experiments = Experiments(laboratory)
        self._feed = Feed(laboratory, self._experiments.state)
        self._tasks: set[asyncio.Task[Any]] = set()

    def create_app(self) -> web.Application:
        app = web.Application(middlewares=[json_errors])
        app[HOST] = LOOPBACK
        enable_event_streams(app)
        app.cleanup_ctx.append(self._running)
        app.router.add_get("/", self._show)
        app.router.add_get("/health", self._health)
        app.router.add_get("/inbox", self._inbox)
        app.router.add_get("/events", self._events, allow_head=False)
        app.router.add_post("/do", self._do)
        add_assets(app, PAGE / "assets")
        return app

    async def _running(self, _: web.Application) -> AsyncIterator[None]:
        feed = keep_running(self._feed.run, "the frames")
        await self._laboratory.start()
        yield
        await end_tasks([feed, *self._tasks])
        await self._laboratory.end()

    async def _show(self, request: web.Request) -> web.Response:
        """The page. Its settings are in it as JSON, because its Content-Security-Policy forbids inline scripts."""
        titles = {name: subject.title for name, subject in (SUBJECTS | STEPS).items()}
        facts = {
            "subjects": {
                lane: [(name, titles[name]) for name in names]
                for lane, names in subjects().items()
                if lane in self._laboratory.lanes
            },
            "experiments": [{"name": name, **experiment.to_dict()} for name, experiment in EXPERIMENTS.items()],
        }
        return html_page("lab.html", PAGE, token=page_token("/"), facts=facts, lanes=list(self._laboratory.lanes))

    async def _health(self, request: web.Request) -> web.Response:
        lanes = {lane.name: lane.status for lane in self._laboratory.lanes.values()}
        return pretty_json({"lanes": lanes, "inbox": self._laboratory.box.page_url})

    async def _inbox(self, request: web.Request) -> web.Response:
        raise web.HTTPFound(self._laboratory.box.page_url)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        return await stream_events(request, self._feed.send)

    async def _do(self, request: web.Request) -> web.Response:
        await check_token(request, "/")
        try:
            await self._act(BODY.validate_json(await request.read()))
        except ValidationError as error:
            [first, *_] = error.errors()
            return error_json(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except CannotAct as problem:
            return error_json(409, str(problem))
        return pretty_json({"done": True})

    async def _act(self, wanted: Wanted) -> None:
        """Raises CannotAct."""
        laboratory, experiments = self._laboratory, self._experiments
        if experiments.busy:
            raise CannotAct("an experiment is running: wait for its result")
        if unknown := {*getattr(wanted, "lanes", []), getattr(wanted, "lane", None)} - {None, *laboratory.lanes}:
            raise CannotAct(f"this lab has no lane {', '.join(sorted(map(str, unknown)))}")
        match wanted:
            case SetLoad():
                laboratory.load(list(wanted.lanes), wanted.rate)
            case SendBurst():
                laboratory.burst(list(wanted.lanes), wanted.count)
            case TurnDial():
                await laboratory.turn_dial(wanted.model_dump(exclude={"do"}))
            case SendSignal() if wanted.predicted:
                self._begin(experiments.signal(wanted.lane, wanted.role, wanted.how, wanted.pid))
            case SendSignal():
                laboratory.signal(wanted.lane, wanted.role, wanted.how, wanted.pid)
            case AddWorker():
                self._begin(laboratory.add_worker(wanted.lane))
            case Switch():
                self._begin(laboratory.switch(wanted.lane, wanted.subject))
            case RunExperiment():
                self._begin(experiments.run(wanted.name))
            case Heal():
                await laboratory.heal()
                laboratory.start_over(list(laboratory.lanes))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this after the answer. The page sees in the event stream how it goes."""

        async def logged() -> None:
            try:
                await work
            except CannotAct as problem:
                log.warning("not done: %s", problem)

        task = background(logged(), "an experiment")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
