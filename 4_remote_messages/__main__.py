"""`python -m 4_remote_messages [server | worker]`: read the settings and start the role."""

import sys

from common.http.serving import serve
from common.processes.process import run
from common.settings import exit_with_usage_error, read_settings

from .server import create_app
from .worker import work

if __name__ == "__main__":
    settings = read_settings()
    match sys.argv[1:]:
        case ["server"] | []:
            run(serve(create_app(settings), settings.host, settings.port), settings.own_redis)
        case ["worker"]:
            run(work(settings), settings.own_redis)
        case _:
            exit_with_usage_error(f"usage: {__doc__}")
