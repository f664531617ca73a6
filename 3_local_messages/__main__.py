"""`python -m 3_local_messages`: read the settings and start the role."""

import os

from common.processes.process import run
from common.processes.steps import step_or
from common.settings import read_settings

from .master import work

if __name__ == "__main__":
    settings = read_settings()
    run(step_or(work, __package__)(settings), prefix=f"[master @ {os.getpid()}] ")
