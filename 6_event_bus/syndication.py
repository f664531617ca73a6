"""Subscribe an application to an event: each such event becomes a job in the application's queue.

`python -m 6_event_bus.syndication APPLICATION EVENT QUEUE CLASS` subscribes. Set LOG as for `make run-6`.
`python -m 6_event_bus.syndication APPLICATION EVENT` ends the subscription.
"""

import sys
from collections.abc import Sequence

from redis.exceptions import RedisError

from asynckit.redis_client import describe, redis_client
from common.processes.process import run
from common.settings import Settings, exit_with_usage_error, read_settings
from eventlog.syndication import subscribe, subscriptions, unsubscribe

from .logs import make_log, on_jetstream

USAGE = "usage: python -m 6_event_bus.syndication APPLICATION EVENT [QUEUE CLASS]"


async def main(settings: Settings, words: Sequence[str]) -> None:
    """If Redis fails, end the program with one line and exit status 1."""
    try:
        await _change(settings, words)
    except RedisError as error:
        sys.exit(describe(error))


async def _change(settings: Settings, words: Sequence[str]) -> None:
    if on_jetstream(settings):
        exit_with_usage_error("LOG: syndication needs a log in Redis: lua or streams")
    async with redis_client(settings.redis) as redis, make_log(settings, redis) as log:
        if len(words) == 4:
            await subscribe(log, redis, *words)
        else:
            await unsubscribe(log, redis, *words)
            print(f"{words[0]}: {words[1]} is no longer made into jobs")
        for one in await subscriptions(redis):
            print(f"{one.application}: {one.event} becomes {one.job_class} in {one.queue}")


if __name__ == "__main__":
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(USAGE)
        sys.exit()
    if len(sys.argv) not in (3, 5):
        exit_with_usage_error(USAGE)
    run(main(read_settings(), sys.argv[1:]), until_stopped=False)
