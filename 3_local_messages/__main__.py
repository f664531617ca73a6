"""`python -m 3_local_messages`: read the settings and start the role."""

import os

from common.processes.role import start_role
from common.processes.steps import step_or

from .master import work

if __name__ == "__main__":
    start_role(__doc__, prefix=f"[master @ {os.getpid()}] ", master=step_or(work, __package__))
