"""Compares answers.toml with what Redis holds, and says what the answer would mean, not what is right."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from workshop.answers import FILE, given, read_answers, valkey
from workshop.program import Failed
from workshop.trial import Trial

from .data import Data


@asynccontextmanager
async def stage(my: Path) -> AsyncIterator[str]:
    async with valkey(my) as (redis, command):
        await Data().fill(redis)
        yield f"Redis is ready. In another terminal: {command}"


async def check(trial: Trial) -> str:
    answers, data = read_answers(trial.folder), Data()
    for name, right in data.facts()._asdict().items():
        answer = given(answers, name)
        if answer != right:
            raise Failed(f"the right answer to {name}", reaction(name, answer, data), f"{FILE}, and {COMMANDS[name]}")
    return "you have found every job"


COMMANDS = {
    "type_of_queue": "TYPE",
    "waiting": "LLEN",
    "queue_of_carol": "SMEMBERS resque:queues, then LRANGE",
    "ahead_of_carol": "LRANGE: the first element is at the head",
    "first_delayed": "ZRANGE resque:delayed_queue_schedule 0 -1, then LRANGE",
    "in_progress": "KEYS resque:worker:*, then GET",
    "why_dave_failed": "LRANGE resque:failed 0 -1",
}


def reaction(name: str, answer: Any, data: Data) -> str:
    match name:
        case "queue_of_carol" if answer in data.queues:
            return f"{answer} has {len(data.queues[answer])} jobs, and none of them is to carol@example.com"
        case "queue_of_carol":
            return f"{answer} is not the name of a queue: {', '.join(sorted(data.queues))}"
        case "ahead_of_carol" if isinstance(answer, int):
            queue = data.queues[data.carol]
            to = queue[answer] if answer < len(queue) else "no recipient"
            return f"the job with {answer} jobs ahead of it is to {to}"
        case "first_delayed" if answer in data.delayed:
            return f"the job to {answer} is delayed, but another one is due earlier"
    return f"{answer!r} is not what Redis holds"
