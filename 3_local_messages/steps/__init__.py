"""The way from chapter 2 to the full design: one small program. `make run-3 STEP=pass_on` runs it.

The web server and the pipes are those of the full design.
"""

STEPS: dict[str, tuple[str, ...]] = {
    "pass_on": ("restarts_web_server", "restarts_email_worker"),
}
"""Each step, and the figures of `/stats` that can be known while it runs. The others are null."""
