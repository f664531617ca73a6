"""`python -m 5_remote_queue.commands COMMAND`: inspect and repair this strategy's queue; `--help` lists them."""

import sys
from collections.abc import Sequence

from asynckit.printing import exit_after
from common.services.service import running
from common.settings import Settings, read_settings
from resque.commands import execute

HINT = " (no REDIS_URL is set; `make services` starts the embedded Valkey)"


def main(words: Sequence[str]) -> int:
    settings = find_valkey(read_settings())
    return execute(words, settings.redis, "python -m 5_remote_queue.commands", "" if settings.redis_url else HINT)


def find_valkey(settings: Settings) -> Settings:
    """The settings with the ports of the embedded Valkey, sentinels or cluster that another terminal runs."""
    name = "valkey" if settings.topology == "single" else settings.topology
    facts = running(settings.data_dir, name) if settings.redis_url is None else None
    ports = {name: port for name, port in (facts or {}).items() if name != "pid"}
    return settings.model_copy(update=ports)


if __name__ == "__main__":
    exit_after(lambda: main(sys.argv[1:]))
