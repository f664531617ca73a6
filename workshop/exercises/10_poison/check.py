"""Compares answers.toml with what the queue's pages show, and says what the answer would mean."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from common.http.frame import json_errors
from common.http.guard import HOST
from common.http.serving import start
from resque.dashboard import dashboard
from workshop.answers import FILE, given, read_answers, valkey
from workshop.program import Failed
from workshop.trial import Trial

from .data import DEATHS, REASONS, Data


@asynccontextmanager
async def stage(my: Path) -> AsyncIterator[str]:
    async with valkey(my) as (redis, _):
        await Data().fill(redis)
        app = web.Application(middlewares=[json_errors])
        app[HOST] = "127.0.0.1"
        port = redis.connection_pool.connection_kwargs["port"]
        app.add_subapp("/resque", dashboard(f"redis://127.0.0.1:{port}/0"))
        runner = await start(app, "127.0.0.1", 0)
        try:
            yield f"The pages of the queue: http://127.0.0.1:{runner.addresses[0][1]}/resque"
        finally:
            await runner.cleanup()


async def check(trial: Trial) -> str:
    answers, data = read_answers(trial.folder), Data()
    for name, right in data.facts()._asdict().items():
        answer = given(answers, name)
        if answer != right:
            raise Failed(f"the right answer to {name}", reaction(name, answer, data), f"{FILE}, and the page Failed")
    return "you have found the job that kills its workers"


def reaction(name: str, answer: Any, data: Data) -> str:
    match name:
        case "poison":
            for failure in data.failures:
                if answer == failure.id:
                    return f"{answer} failed with {failure.exception}: {failure.error}. Its worker survived that"
            return f"no failed job has {answer} as the id in its arguments"
        case "queue":
            return f"{data.poison.id} does not come from {answer}"
        case "workers_killed":
            return f"{answer} is not what the error of {data.poison.id} says"
        case "to_retry":
            meanings = ", ".join(f"{exception} ({error})" for exception, (error, _) in REASONS.items())
            consequence = "some fail again at once, or some that can succeed are left out"
            return f"if you retry {answer} jobs, {consequence}: {meanings}"
        case _:
            kills = f"it would kill {DEATHS} more workers" if answer == "retry" else "the customer never gets a picture"
            return f"with {answer}: {kills}"
