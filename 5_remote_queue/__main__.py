"""`python -m 5_remote_queue [server | worker | scheduler | demo]`: read the settings and start the role.

To inspect and repair the queue: `python -m 5_remote_queue.commands --help`.
"""

from common.http.serving import web_role
from common.processes.chapter import chapter_module
from common.processes.role import start_role
from common.processes.steps import step_or
from common.settings import Settings

from .demo import demo
from .scheduler import schedule
from .server import create_app
from .worker import work


async def worker(settings: Settings) -> None:
    on_rabbitmq = settings.queue == "rabbitmq"
    await (chapter_module(f"{__package__}.rabbitmq").work if on_rabbitmq else step_or(work, __package__))(settings)


if __name__ == "__main__":
    start_role(__doc__, uses_redis=True, server=web_role(create_app), worker=worker, scheduler=schedule, demo=demo)
