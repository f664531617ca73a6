"""`python -m 5_remote_queue [server | worker | scheduler | demo]`: read the settings and start the role."""

import sys

from common.process import run
from common.serving import serve
from common.settings import read_settings

from .demo import demo
from .scheduler import schedule
from .server import create_app
from .worker import work

if __name__ == "__main__":
    settings = read_settings()
    if "worker" in sys.argv:
        run(work(settings))
    elif "scheduler" in sys.argv:
        run(schedule(settings))
    elif "demo" in sys.argv:
        run(demo(settings))
    else:
        run(serve(create_app(settings), settings.host, settings.port))
