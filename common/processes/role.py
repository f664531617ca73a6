"""Starts the role that a command names, such as `python -m 5_remote_queue worker`."""

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from common.processes.process import run
from common.settings import Settings, exit_with_usage_error, read_settings

Role = Callable[[Settings], Coroutine[Any, Any, None]]


def start_role(usage: str | None, *, prefix: str = "", uses_redis: bool = False, **roles: Role) -> None:
    """Run the role that the command line names, or the first one if it names none, with the settings.

    `prefix` begins each line of its log. With `uses_redis`, a REDIS_URL that the strategies cannot use is refused. Any
    other command line ends the program with `usage` and exit status 2.
    """
    settings = read_settings()
    match sys.argv[1:]:
        case []:
            role = next(iter(roles.values()))
        case [name] if name in roles:
            role = roles[name]
        case _:
            exit_with_usage_error(f"usage: {usage}")
    run(role(settings), settings.own_redis if uses_redis else None, prefix=prefix)
