"""`python -m 6_event_bus [server | worker]`: read the settings and start the role."""

import sys

from common.process import run
from common.serving import serve
from common.settings import read_settings

from .server import create_app
from .worker import work

if __name__ == "__main__":
    settings = read_settings()
    run(work(settings) if "worker" in sys.argv else serve(create_app(settings), settings.host, settings.port))
