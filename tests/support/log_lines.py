"""Questions that tests ask of the log of `make run-N`."""

import re
from collections import defaultdict


def at_most_once_a_second(output: str, pattern: str) -> int:
    """Count the lines of the log with this pattern, and check that each process wrote at most one a second."""
    found = re.findall(rf"^\[(\w+ @ \d+)\] (\d\d):(\d\d):(\d\d\.\d+) .*{pattern}", output, re.MULTILINE)
    said: defaultdict[str, list[float]] = defaultdict(list)
    for process, hours, minutes, seconds in found:
        said[process].append(int(hours) * 3600 + int(minutes) * 60 + float(seconds))
    for process, moments in said.items():
        took = (moments[-1] - moments[0]) % 86400
        assert took > len(moments) - 1.5, f"{process} has said {pattern!r} {len(moments)} times in {took:g} s"
    return len(found)
