"""The pages. Each reads only what it shows."""

from itertools import groupby

from aiohttp import web

from .. import show
from ..housekeeping import LEADER
from ..items import Item
from ..states import WorkerState
from ..wire import BadJob, Job
from . import actions, live
from .charts import throughput, waiting_times
from .parts import PARTS, number, page

ON_A_PAGE = 25
QUEUES_ON_A_PAGE = 200
WORKERS_ON_A_PAGE = 2000


async def overview(request: web.Request) -> web.Response:
    parts = request.app[PARTS]
    moments = await parts.observer.chart()
    return page(
        request,
        "overview.html",
        figures=await live.figures(parts),
        totals=await parts.observer.totals(),
        leader=await parts.observer.leader(),
        elsewhere=await parts.failed.elsewhere(),
        us=LEADER,
        throughput=throughput(moments),
        waits=waiting_times(moments),
    )


async def queues(request: web.Request) -> web.Response:
    parts, start = request.app[PARTS], number(request.query.get("from"), 0)
    names = await parts.queues.names()
    return page(
        request,
        "queues.html",
        queues=await parts.queues.states(names[start : start + QUEUES_ON_A_PAGE]),
        start=start,
        total=len(names),
        following=start + QUEUES_ON_A_PAGE if start + QUEUES_ON_A_PAGE < len(names) else None,
        notice=actions.notice(request),
    )


async def jobs(request: web.Request) -> web.Response:
    """The jobs of one queue, the oldest first. `from` is an index, so the page shifts while workers claim jobs."""
    parts, name = request.app[PARTS], request.query.get("name", "")
    start = number(request.query.get("from"), 0)
    [state] = await parts.queues.states([name])
    items = await parts.queues.jobs(name, start, ON_A_PAGE)
    return page(
        request,
        "jobs.html",
        state=state,
        jobs=[(item, _job(item, name)) for item in items],
        start=start,
        following=start + ON_A_PAGE if state.length and start + ON_A_PAGE < state.length else None,
        last=max(0, (state.length or 0) - ON_A_PAGE),
        count=ON_A_PAGE,
    )


def _job(item: Item, queue: str) -> Job | str:
    """The job, or why it cannot be shown."""
    if not item.whole:
        return f"{show.size(item.size)}; this is the beginning"
    try:
        return item.job(queue)
    except BadJob as error:
        return str(error)


async def delayed(request: web.Request) -> web.Response:
    parts, query = request.app[PARTS], request.query
    second, place = number(query.get("from"), 0), number(query.get("place"), 0)
    count, more = await parts.delayed.count()
    return page(
        request,
        "delayed.html",
        page=await parts.delayed.page(second, place, ON_A_PAGE),
        first=not second and not place,
        now=await parts.observer.now(),
        count=count,
        more=more,
        notice=actions.notice(request),
    )


async def failed(request: web.Request) -> web.Response:
    parts = request.app[PARTS]
    before = number(request.query.get("before"), 0) or None
    failures = await parts.failed.list(before, ON_A_PAGE)
    return page(
        request,
        "failed.html",
        failures=failures,
        before=before,
        following=failures[-1].number if failures and failures[-1].number > 1 else None,
        count=await parts.failed.count(),
        now=await parts.observer.now(),
        notice=actions.notice(request),
    )


async def workers(request: web.Request) -> web.Response:
    """Busy and silent workers one by one; for idle workers, only how many each process has."""
    parts = request.app[PARTS]
    states = await parts.observer.workers(WORKERS_ON_A_PAGE + 1)
    shown = states[:WORKERS_ON_A_PAGE]
    busy = [state for state in shown if state.alive and state.working]
    return page(
        request,
        "workers.html",
        busy=sorted(busy, key=lambda state: state.working_seconds or 0.0, reverse=True),
        silent=[state for state in shown if not state.alive],
        idle=[
            (process, list(group))
            for process, group in groupby([state for state in shown if state.alive and not state.working], _process)
        ],
        more=len(states) > WORKERS_ON_A_PAGE,
    )


def _process(state: WorkerState) -> tuple[str, str]:
    """The process and queues of a worker: the slots of a process have its name followed by +1, +2, …"""
    name = state.id.removesuffix(f":{state.queues}")
    return name.partition("+")[0], state.queues
