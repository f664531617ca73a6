"""`python -m 2_parallel`: read the settings and start the role."""

from common.http.serving import serve
from common.processes.process import run
from common.settings import read_settings

from .server import create_app

if __name__ == "__main__":
    settings = read_settings()
    run(serve(create_app(settings), settings.host, settings.port))
