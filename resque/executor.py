"""Runs one claimed job, within its time limit, and settles it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from asynckit.redis_client import CALL_ERRORS

from .claims import Claim, Claims
from .definition import Definition, Definitions
from .events import Failed, Hook, JobStarted, Reenqueued, Succeeded, TooLate
from .isolation import Threads, call_on_loop
from .process_pool import ProcessPool
from .reports import Report, report_of
from .wire import BadJob, Job

Outage = Callable[[str, Exception, int], Awaitable[None]]


class UnknownClass(Exception):
    """The worker has no definition for the job's class."""


class BadArguments(Exception):
    """The job has fewer or more arguments than its code takes, so no attempt can succeed."""


class Executor:
    """`outage` is awaited when Redis did not answer: it logs the error and waits before the next try."""

    def __init__(
        self, claims: Claims, definitions: Definitions, hook: Hook, outage: Outage, processes: int | None = None
    ) -> None:
        self._claims = claims
        self._definitions = definitions
        self._hook = hook
        self._outage = outage
        self.threads = Threads()
        self._pool = ProcessPool(self.threads, processes)

    def close(self) -> None:
        self._pool.close()
        self.threads.close()

    async def perform(self, claim: Claim) -> None:
        """Run the job and settle it. If this is cancelled, the caller must release the job."""
        started = time.monotonic()
        job = claim.job
        if job is None:
            return await self._give_up(claim, BadJob(claim.bad))
        definition = self._definitions.get(job.name)
        if definition is None:
            return await self._give_up(claim, UnknownClass(f'no definition for the class "{job.name}"'))
        if misfit := definition.misfit(job.args):
            return await self._give_up(claim, BadArguments(misfit))
        self._hook(JobStarted(claim.slot.name, job, claim.failed + 1, claim.waited))
        try:
            claim.lock = definition.lock(job)
            result = await self._call(definition, job)
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            await self._failed(claim, definition, error)  # the job cancelled itself
        except BaseException as error:  # also SystemExit: whatever the code of a job raises is a failed attempt
            await self._failed(claim, definition, error)
        else:
            if await self._settle(claim, self._claims.acknowledge):
                self._hook(Succeeded(claim.slot.name, job, result, time.monotonic() - started))
            else:
                self._hook(TooLate(claim.slot.name, job))

    def _call(self, definition: Definition, job: Job) -> Awaitable[Any]:
        call = self._call_with_plugins if definition.plugins else self._perform
        return call(definition, job)

    async def _call_with_plugins(self, definition: Definition, job: Job) -> Any:
        for plugin in definition.plugins:
            if not await call_on_loop(plugin.before_perform, [job]):
                return None
        error: BaseException | None = None
        try:
            return await self._perform(definition, job)
        except BaseException as raised:
            error = raised
            raise
        finally:
            for plugin in definition.plugins:
                await call_on_loop(plugin.after_perform, [job, error])

    def _perform(self, definition: Definition, job: Job) -> Awaitable[Any]:
        call = self._pool.call if definition.in_process else call_on_loop if definition.is_async else self.threads.call
        return call(definition.perform, job.args, definition.time_limit)

    async def _failed(self, claim: Claim, definition: Definition, error: BaseException) -> None:
        assert claim.job is not None
        report = report_of(error)
        if report.wait:
            await self._settle(claim, self._claims.release)
            return None
        attempt = claim.failed + 1
        if report.permanent or attempt >= definition.attempts:
            return await self._give_up(claim, error, report)
        seconds = definition.pause(attempt)
        if await self._settle(claim, lambda claim: self._claims.retry(claim, seconds)):
            self._hook(Reenqueued(claim.slot.name, claim.job, attempt, error, seconds))

    async def _give_up(self, claim: Claim, error: BaseException, report: Report | None = None) -> None:
        kind, text, lines, *_ = report or report_of(error)
        if await self._settle(claim, lambda claim: self._claims.give_up(claim, kind, text, lines)):
            self._hook(Failed(claim.slot.name, claim.job, claim.failed + 1, error))

    async def _settle(self, claim: Claim, settle: Callable[[Claim], Awaitable[bool]]) -> bool:
        """Repeat the call until Redis has answered, which is safe. Returns False if the job was no longer this
        worker's.
        """
        failures = 0
        while True:
            try:
                return await settle(claim)
            except CALL_ERRORS as error:
                failures += 1
                await self._outage("cannot settle a job", error, failures)
