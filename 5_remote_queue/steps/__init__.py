"""From chapter 4 to the full design in three steps, each a complete small worker. `make run-5 STEP=pop` runs one.

Each step fixes the loss of the step before. The web server and the queue are those of the full design.
"""

STEPS: dict[str, tuple[str, ...]] = {
    "pop": ("waiting", "failed"),
    "move": ("waiting", "failed"),
    "lease": ("waiting", "failed", "in_flight", "oldest_wait_seconds"),
}
"""Each step, with the figures of `/stats` that can be known while it runs. The others are null."""
