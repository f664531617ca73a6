"""Reads a growing log: each line once, however often it is asked."""

import re
from pathlib import Path


class LogScan:
    """All matches of a pattern in a log so far. Only complete lines are read."""

    def __init__(self, path: Path, pattern: re.Pattern[str]) -> None:
        """The pattern must have groups; `matches` has what `re.findall` returns."""
        self._path = path
        self._pattern = pattern
        self._read = 0  # bytes
        self._matches: list[tuple[str, ...]] = []

    def matches(self) -> list[tuple[str, ...]]:
        with open(self._path, "rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        if whole:
            self._read += len(whole) + 1
            found = self._pattern.finditer(whole.decode(errors="replace") + "\n")
            self._matches += [match.groups() for match in found]
        return self._matches
