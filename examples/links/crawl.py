"""The job: check one URL and, on a page of the site, enqueue a job for each link that was not known yet."""

import logging
from collections.abc import Iterable
from urllib.parse import urlsplit

from asynckit.backoff import backoff_seconds
from resque import Queue

from .fetch import Answer, Fetcher, Skipped, TryLater
from .html import links_of
from .store import Result, Store, Target

JOB = "check"
ATTEMPTS = 4
FIRST_PAUSE = 2.0  # seconds; it doubles

log = logging.getLogger(__name__)


class Crawl:
    """`hosts` are those whose pages are read; other hosts are only asked whether the link works."""

    def __init__(self, store: Store, queue: Queue, fetcher: Fetcher, hosts: frozenset[str], max_depth: int) -> None:
        self._store = store
        self._queue = queue
        self._fetcher = fetcher
        self._hosts = hosts
        self._max_depth = max_depth
        self.name = f"links-{store.run}"

    async def start(self, url: str) -> None:
        """Begin with this page, or go on with what an interrupted run has left."""
        self._store.add([Target(url, 0, read_links=True)])
        await self._enqueue(self._store.waiting())

    async def check(self, arguments: dict[str, object]) -> None:
        """What a job does. It may run twice (after a kill): the rows in the store are the same then."""
        url, depth, attempt = str(arguments["url"]), int(str(arguments["depth"])), int(str(arguments["attempt"]))
        read_links = bool(arguments["read_links"])
        try:
            answer = await self._fetcher.fetch(url, read=read_links)
        except Skipped as error:
            self._store.finish(url, Result("skipped", reason=str(error)))
        except TryLater as error:
            await self._try_later(Target(url, depth, read_links), attempt, error)
        except Exception as error:  # a mistake in this program must not keep the run from ending
            log.exception("error while checking %s", url)
            self._store.finish(url, Result("dead", reason=f"{type(error).__name__} in the checker"))
        else:
            await self._follow(answer, url, depth)  # first the new links, then the result: a kill repeats this page
            state = "ok" if 200 <= answer.status < 400 else "dead"
            reason = answer.reason if answer.url == url else f"{answer.reason}, after a redirect to {answer.url}"
            self._store.finish(url, Result(state, answer.status or None, reason, answer.milliseconds))

    async def _try_later(self, target: Target, attempt: int, error: TryLater) -> None:
        if attempt >= ATTEMPTS:
            reason = f"{error}, {attempt} times"
            self._store.finish(target.url, Result("dead", error.status, reason))
            return
        pause = error.seconds if error.seconds is not None else backoff_seconds(attempt, FIRST_PAUSE)
        await self._queue.enqueue_in(
            pause, self.name, JOB, [_arguments(target, attempt + 1)], self._id(target, attempt + 1)
        )

    async def _follow(self, answer: Answer, page: str, depth: int) -> None:
        if answer.body is None or urlsplit(answer.url).hostname not in self._hosts:
            return
        targets = [
            Target(url, depth + 1, depth < self._max_depth and urlsplit(url).hostname in self._hosts)
            for url in links_of(answer.body, answer.charset, answer.url)
        ]
        await self._enqueue(self._store.add(targets, page))

    def _id(self, target: Target, attempt: int) -> str:
        """The queue takes an id once within an hour, so a row that becomes a job twice is checked once."""
        return f"{self.name} {target.url} {target.read_links} {attempt}"

    async def _enqueue(self, targets: Iterable[Target]) -> None:
        for target in targets:
            await self._queue.enqueue(self.name, JOB, [_arguments(target, 1)], self._id(target, 1))


def _arguments(target: Target, attempt: int) -> dict[str, object]:
    return {**target._asdict(), "attempt": attempt}
