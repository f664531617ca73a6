"""Exercises whose answers are written into `answers.toml`."""

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from asynckit.redis_client import redis_client
from common.services.service import Service
from common.settings import Settings
from workshop.program import Failed
from workshop.trial import on_path

FILE = "answers.toml"


def read_answers(folder: Path) -> dict[str, Any]:
    """Raises Failed if the file is not TOML."""
    try:
        return tomllib.loads((folder / FILE).read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Failed(f"{FILE} is a TOML file", str(error), FILE) from None


def given(answers: dict[str, Any], name: str, section: str = "") -> Any:
    """The answer. Raises Failed if there is none yet."""
    answer = answers.get(name)
    if answer in (None, "", -1):
        place = f"{FILE}, section [{section}]" if section else FILE
        raise Failed(f"an answer to {name}", "it is empty", place)
    return answer


@asynccontextmanager
async def valkey(my: Path) -> AsyncIterator[tuple[Redis, str]]:
    """An empty Valkey for the learner, with its data in workshop/my/.data, and the command for a prompt."""
    folder = my / ".data"
    with Service(Settings.model_construct(data_dir=folder, valkey_port=0), "valkey") as service:
        async with redis_client(f"redis://127.0.0.1:{service.ports['VALKEY_PORT']}/0") as redis:
            await redis.flushall()
            yield redis, f"make redis-cli DATA_DIR={on_path(folder)}"
