"""The consumers of the log: list them, or remove one whose handler is gone, so that the log keeps nothing for it.

`python -m 6_event_bus.consumers` lists the consumers of the running strategy; LOG must be the same as for the strategy.
`python -m 6_event_bus.consumers leave NAME` removes one.
"""

import sys
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from asynckit.redis_client import describe_for, redis_client
from common.mail.mailer import Mailer
from common.processes.log_format import printable
from common.processes.process import run
from common.services.service import find_running_redis
from common.settings import Settings, exit_with_usage_error, read_settings
from eventlog.log import Log

from .handlers import make_handlers
from .logs import make_log, on_jetstream

USAGE = "usage: python -m 6_event_bus.consumers [leave NAME]"


async def main(settings: Settings, words: Sequence[str]) -> None:
    """Ends the program with one line and exit status 1 if Redis fails."""
    if on_jetstream(settings):
        exit_with_usage_error(
            "LOG: this command needs a log in Redis (lua or streams); for JetStream, use `nats consumer ls eventlog`"
        )
    try:
        async with redis_client(settings.redis) as redis, make_log(settings, redis) as log:
            if words:
                await leave(log, words[-1], settings, redis)
            for name in await log.consumers():
                print(printable(f"{name}: {await state(log, name)}"))
    except RedisError as error:
        sys.exit(describe_for(settings.redis, error))


async def state(log: Log, name: str) -> str:
    """What is printed about a consumer: its counts, or the error if its data is invalid."""
    try:
        lag = await log.lag(name)
    except (ValueError, TypeError, KeyError, ResponseError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{lag.waiting} waiting, {lag.pending} in flight, {lag.parked} parked"


async def leave(log: Log, name: str, settings: Settings, redis: Redis) -> None:
    # A worker that still runs this handler would register it again within a second; on Streams that replays the log.
    if name in {handler.name for handler in make_handlers(settings, redis, Mailer(settings))}:
        sys.exit(f"{name} has a handler: first remove it from make_handlers and restart the workers")
    if name not in await log.consumers():
        sys.exit(printable(f"there is no consumer {name}; there are {', '.join(await log.consumers())}"))
    await log.leave(name)
    print(f"{name} is removed")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["-h" | "--help"]:
            print(USAGE)
        case [] | ["leave", _]:
            run(main(find_running_redis(read_settings()), sys.argv[1:]), until_stopped=False)
        case _:
            exit_with_usage_error(USAGE)
