"""`python -m lab.bench`, which `make bench` runs; with PEERS=1 it measures other queues instead of our parts."""

import os

from lab.bench import suite
from lab.peers import command

if __name__ == "__main__":
    (command if os.environ.get("PEERS") == "1" else suite).main()
