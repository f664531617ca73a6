"""Subscribe an application to an event: each such event becomes a job in the application's queue.

`python -m 6_event_bus.syndication APPLICATION EVENT QUEUE CLASS` subscribes. Set LOG as for `make run-6`.
`python -m 6_event_bus.syndication APPLICATION EVENT` ends the subscription.
"""

import sys
from collections.abc import Sequence

from redis.exceptions import RedisError

from asynckit.printing import are_utf8
from asynckit.redis_client import describe_for, redis_client
from common.processes.log_format import printable
from common.processes.process import run
from common.services.service import find_running_redis
from common.settings import Settings, exit_with_usage_error, read_settings
from eventlog.syndication import subscribe, subscriptions, unsubscribe

from .logs import make_log, on_jetstream

USAGE = "usage: python -m 6_event_bus.syndication APPLICATION EVENT [QUEUE CLASS]"


async def main(settings: Settings, words: Sequence[str]) -> None:
    """If Redis fails, or there is no such subscription to end, end the program with one line and exit status 1."""
    try:
        await _change(settings, words)
    except RedisError as error:
        sys.exit(describe_for(settings.redis, error))


async def _change(settings: Settings, words: Sequence[str]) -> None:
    if on_jetstream(settings):
        exit_with_usage_error("LOG: syndication needs a log in Redis: lua or streams")
    async with redis_client(settings.redis) as redis, make_log(settings, redis) as log:
        if len(words) == 4:
            try:
                await subscribe(log, redis, *words)
            except ValueError as error:
                exit_with_usage_error(str(error))
        elif await unsubscribe(log, redis, *words):
            print(printable(f"{words[0]} is no longer subscribed to {words[1]}"))
        else:
            sys.exit(printable(f"{words[0]} is not subscribed to {words[1]}"))
        for one in await subscriptions(redis):
            print(printable(f"{one.application}: {one.event} becomes {one.job_class} in {one.queue}"))


if __name__ == "__main__":
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(USAGE)
        sys.exit()
    if len(sys.argv) not in (3, 5):
        exit_with_usage_error(USAGE)
    if not are_utf8(sys.argv):
        exit_with_usage_error("an argument is not valid UTF-8")
    run(main(find_running_redis(read_settings()), sys.argv[1:]), until_stopped=False)
