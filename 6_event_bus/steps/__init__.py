"""The way from the talk's event bus to the full design: three small workers. `make run-6 STEP=cursor_first` runs one.

The first two read a log of their own (talk.py), which the web server fills while they run; the third reads the stream
of `LOG=streams`.
"""

STEPS: dict[str, tuple[str, ...]] = {
    "cursor_first": ("events",),
    "commit_after": ("events",),
    "group": ("events",),
}
"""Each step, and the figures of `/stats` that can be known while it runs. The others are null."""
