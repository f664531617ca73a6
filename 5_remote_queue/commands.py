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
    """The settings with the port of the embedded Valkey that another terminal of this checkout runs."""
    facts = running(settings.data_dir, "valkey") if settings.redis_url is None else None
    return settings.model_copy(update={"valkey_port": facts["valkey_port"]}) if facts else settings


if __name__ == "__main__":
    exit_after(lambda: main(sys.argv[1:]))
