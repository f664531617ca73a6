"""`python -m 6_event_bus [server | worker]`: read the settings and start the role."""

from common.http.serving import web_role
from common.processes.role import start_role
from common.processes.steps import step_or

from .server import create_app
from .worker import work

if __name__ == "__main__":
    start_role(__doc__, uses_redis=True, server=web_role(create_app), worker=step_or(work, __package__))
