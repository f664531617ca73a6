"""`python -m 5_remote_queue [COMMAND]`: a role, or a look at the queue; `--help` lists them all."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
