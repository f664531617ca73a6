"""Three small workers that lead from the talk's event bus to the full design. `make run-6 STEP=cursor_first` runs one.

The first two read the log of talk.py, to which the web server appends in these steps. The third reads the stream of
`LOG=streams`.
"""

STEPS: dict[str, tuple[str, ...]] = {
    "cursor_first": ("events",),
    "commit_after": ("events",),
    "group": ("events",),
}
"""For each step the figures of `/stats` that are known while it runs. The others are null."""
