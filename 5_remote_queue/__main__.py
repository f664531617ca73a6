"""`python -m 5_remote_queue [server | worker | scheduler | demo]`: read the settings and start the role.

To inspect and repair the queue: `python -m 5_remote_queue.commands --help`.
"""

import sys

from common.http.serving import serve
from common.processes.chapter import chapter_module
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
            run(serve(create_app(settings), settings.host, settings.port), settings.own_redis)
        case ["worker"] if settings.queue == "rabbitmq":
            run(chapter_module(f"{__package__}.rabbitmq").work(settings))
        case ["worker"]:
            run(step_or(work, settings, __package__)(settings), settings.own_redis)
        case ["scheduler"]:
            run(schedule(settings), settings.own_redis)
        case ["demo"]:
            run(demo(settings), settings.own_redis)
        case _:
            exit_with_usage_error(f"usage: {__doc__}")
