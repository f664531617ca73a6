"""One job from its first line to its settlement: what it does, how long it may take, and what becomes of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import Any

from redis.exceptions import RedisError

from .claims import Claim, Claims
from .definition import Definition, Definitions, Permanent, WaitAndRepeat
from .events import Failed, Hook, JobStarted, Reenqueued, Succeeded, TooLate, backtrace
from .process_pool import process_pool
from .wire import BadJob

Outage = Callable[[str, RedisError, int], Awaitable[None]]


class UnknownClass(Exception):
    """Nobody here knows what a job of this class should do."""


class Performer:
    """`outage` is awaited when Redis did not answer: it tells of it, and waits before the next try."""

    def __init__(
        self, claims: Claims, definitions: Definitions, hook: Hook, outage: Outage, processes: int | None = None
    ) -> None:
        self._claims = claims
        self._definitions = definitions
        self._hook = hook
        self._outage = outage
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def perform(self, claim: Claim) -> None:
        """Run the job and settle it. Cancelled, it leaves it to the caller to give the job back."""
        started = time.monotonic()
        job = claim.job
        if job is None:
            return await self._give_up(claim, BadJob(claim.bad))
        definition = self._definitions.get(job.name)
        if definition is None:
            return await self._give_up(claim, UnknownClass(f'nobody here knows the class "{job.name}"'))
        self._hook(JobStarted(claim.slot.name, job, claim.failed + 1, claim.waited))
        try:
            claim.lock = definition.lock(job)
            result = await self._call(definition, claim)
        except WaitAndRepeat:
            await self._settle(claim, self._claims.give_back)
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            await self._failed(claim, definition, error)  # the job's own doing, not ours
        except Exception as error:
            await self._failed(claim, definition, error)
        else:
            if await self._settle(claim, self._claims.acknowledge):
                self._hook(Succeeded(claim.slot.name, job, result, time.monotonic() - started))
            else:
                self._hook(TooLate(claim.slot.name, job))

    async def _call(self, definition: Definition, claim: Claim) -> Any:
        assert claim.job is not None
        if not definition.plugins:
            return await self._call_limited(definition, claim.job.args)
        for plugin in definition.plugins:
            if not await plugin.before_perform(claim.job):
                return None
        error: BaseException | None = None
        try:
            return await self._call_limited(definition, claim.job.args)
        except BaseException as raised:
            error = raised
            raise
        finally:
            for plugin in definition.plugins:
                await plugin.after_perform(claim.job, error)

    async def _call_limited(self, definition: Definition, args: list[Any]) -> Any:
        if definition.time_limit is None:
            return await self._call_plain(definition, args)
        try:
            async with asyncio.timeout(definition.time_limit) as limit:
                return await self._call_plain(definition, args)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(f"not done within {definition.time_limit:g} s") from error

    async def _call_plain(self, definition: Definition, args: list[Any]) -> Any:
        if definition.in_process:
            return await self._call_in_process(definition, args)
        if definition.is_async:
            return await definition.perform(*args)
        return await asyncio.to_thread(definition.perform, *args)

    async def _call_in_process(self, definition: Definition, args: list[Any]) -> Any:
        self._pool = self._pool or process_pool(self._processes)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, definition.perform, *args)
        except BrokenExecutor:  # one of its processes was killed, and with it the pool: the next job gets another
            self._pool = None
            raise

    async def _failed(self, claim: Claim, definition: Definition, error: BaseException) -> None:
        assert claim.job is not None
        attempt = claim.failed + 1
        if isinstance(error, Permanent) or attempt >= definition.attempts:
            return await self._give_up(claim, error)
        seconds = definition.pause(attempt)
        if await self._settle(claim, lambda claim: self._claims.retry(claim, seconds)):
            self._hook(Reenqueued(claim.slot.name, claim.job, attempt, error, seconds))

    async def _give_up(self, claim: Claim, error: BaseException) -> None:
        cause = error.__cause__ if isinstance(error, Permanent) and error.__cause__ else error
        kind, lines = type(cause).__name__, backtrace(error)
        if await self._settle(claim, lambda claim: self._claims.give_up(claim, kind, str(error), lines)):
            self._hook(Failed(claim.slot.name, claim.job, claim.failed + 1, error))

    async def _settle(self, claim: Claim, settle: Callable[[Claim], Awaitable[bool]]) -> bool:
        """Say what became of a job until Redis has heard it: to repeat it is safe. False: the job was not ours any
        more.
        """
        failures = 0
        while True:
            try:
                return await settle(claim)
            except RedisError as error:
                failures += 1
                await self._outage("cannot settle a job", error, failures)
