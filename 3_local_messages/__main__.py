"""`python -m 3_local_messages`: read the settings and start the role."""

import os

from common.processes.process import run
from common.settings import read_settings

from .master import Master

if __name__ == "__main__":
    run(Master(read_settings()).run(), prefix=f"[master @ {os.getpid()}] ")
