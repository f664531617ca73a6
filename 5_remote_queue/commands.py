"""`python -m 5_remote_queue.commands COMMAND`: inspect and repair this strategy's queue; `--help` lists them."""

import sys
from collections.abc import Sequence

from asynckit.printing import exit_after
from common.services.service import find_running_redis
from common.settings import read_settings
from resque.commands import execute

HINT = " (no REDIS_URL is set; `make services` starts the embedded Valkey)"


def main(words: Sequence[str]) -> int:
    settings = find_running_redis(read_settings())
    return execute(words, settings.redis, "python -m 5_remote_queue.commands", "" if settings.redis_url else HINT)


if __name__ == "__main__":
    exit_after(lambda: main(sys.argv[1:]))
