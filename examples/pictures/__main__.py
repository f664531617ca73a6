"""`python -m examples.pictures [server | worker]`: read the settings and start the role."""

import sys

from common.http.serving import serve
from common.processes.process import run
from common.settings import exit_with_usage_error, read_settings_of

from .server import create_app
from .settings import PictureSettings
from .worker import work

if __name__ == "__main__":
    settings = read_settings_of(PictureSettings)
    match sys.argv[1:]:
        case ["server"] | []:
            run(serve(create_app(settings), settings.host, settings.port))
        case ["worker"]:
            run(work(settings))
        case _:
            exit_with_usage_error(f"usage: {__doc__}")
