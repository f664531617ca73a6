"""`python -m 5_remote_queue [server | worker | scheduler | demo]`: read the settings and start the role.

To inspect and repair the queue: `python -m 5_remote_queue.commands --help`.
"""

import sys

from common.http.serving import serve
from common.processes.process import run
from common.processes.steps import step_or
from common.settings import exit_with_usage_error, read_settings

from .demo import demo
from .scheduler import schedule
from .server import create_app
from .worker import work

if __name__ == "__main__":
    settings = read_settings()
    match sys.argv[1:]:
        case ["server"] | []:
            run(serve(create_app(settings), settings.host, settings.port))
        case ["worker"]:
            run(step_or(work, settings, __package__)(settings))
        case ["scheduler"]:
            run(schedule(settings))
        case ["demo"]:
            run(demo(settings))
        case _:
            exit_with_usage_error(f"usage: {__doc__}")
