"""The way from chapter 4 to the full design: three small workers, each a whole program. `make run-5 STEP=pop` runs one.

Each one fixes the loss of the one before. The web server and the queue are those of the full design.
"""

STEPS: dict[str, tuple[str, ...]] = {
    "pop": ("waiting", "failed"),
    "move": ("waiting", "failed"),
    "lease": ("waiting", "failed", "in_flight", "oldest_wait_seconds"),
}
"""Each step, and the figures of `/stats` that can be known while it runs. The others are null."""
