"""`python -m 5_remote_queue [server | worker | scheduler]`: read the settings and start the role."""

import sys

from common.process import run
from common.serving import serve
from common.settings import read_settings

from .scheduler import schedule
from .server import create_app
from .worker import work

if __name__ == "__main__":
    settings = read_settings()
    others = {"worker": work, "scheduler": schedule}
    chosen = [others[role](settings) for role in sys.argv[1:] if role in others]
    run(chosen[0] if chosen else serve(create_app(settings), settings.host, settings.port))
