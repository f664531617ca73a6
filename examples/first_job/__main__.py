"""`python -m examples.first_job [server | worker]`: read the settings and start the role."""

from common.http.serving import web_role
from common.processes.role import start_role

from .server import create_app
from .worker import work

if __name__ == "__main__":
    start_role(__doc__, server=web_role(create_app), worker=work)
