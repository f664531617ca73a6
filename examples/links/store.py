"""The results, in SQLite. A URL is a row before it is a job, so a kill between the two loses nothing: at the next start
every row without a result becomes a job again.
"""

import secrets
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SCHEMA = """
CREATE TABLE IF NOT EXISTS urls (
    url TEXT PRIMARY KEY,
    depth INTEGER NOT NULL,      -- links from the first page to here
    read_links INTEGER NOT NULL, -- 1: a page of the site, whose own links are checked too
    state TEXT NOT NULL DEFAULT 'waiting', -- waiting, ok, dead, skipped
    status INTEGER,              -- of the last answer; NULL: there was none
    reason TEXT NOT NULL DEFAULT '',
    milliseconds INTEGER
);
CREATE TABLE IF NOT EXISTS run (id TEXT NOT NULL); -- one row: a name for this run, which names its queue
CREATE TABLE IF NOT EXISTS found (page TEXT NOT NULL, url TEXT NOT NULL, PRIMARY KEY (page, url));
"""


class Target(NamedTuple):
    url: str
    depth: int
    read_links: bool


class Result(NamedTuple):
    state: str
    """"ok", "dead", or "skipped" (robots.txt forbids it, or it is in a private network)."""
    status: int | None = None
    reason: str = ""
    milliseconds: int | None = None


class Row(NamedTuple):
    url: str
    state: str
    status: int | None
    reason: str
    milliseconds: int | None
    pages: list[str]
    """Where the link was found; empty for the first page."""


class Store:
    """One file for one site: it goes on with an unfinished run, or begins a new one. Each method is one transaction."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(SCHEMA)
        if not self.waiting():
            self._begin()
        [(self.run,)] = self._db.execute("SELECT id FROM run")

    def _begin(self) -> None:
        """An earlier run is complete, or there was none: start with empty tables."""
        with self._db:
            self._db.executescript("DELETE FROM urls; DELETE FROM found; DELETE FROM run;")
            self._db.execute("INSERT INTO run VALUES (?)", (secrets.token_hex(4),))

    def close(self) -> None:
        self._db.close()

    def add(self, targets: Iterable[Target], page: str | None = None) -> list[Target]:
        """Note that `page` links to these. Returns those that need a job: new URLs, and links that are now pages."""
        new = []
        with self._db:
            for target in targets:
                added = self._db.execute("INSERT OR IGNORE INTO urls (url, depth, read_links) VALUES (?, ?, ?)", target)
                deeper = added.rowcount == 0 and self._db.execute(
                    "UPDATE urls SET depth = ?, read_links = ?, state = 'waiting' WHERE url = ? AND read_links < ?",
                    (target.depth, target.read_links, target.url, target.read_links),
                )
                if added.rowcount or (deeper and deeper.rowcount):
                    new.append(target)
                if page is not None:
                    self._db.execute("INSERT OR IGNORE INTO found VALUES (?, ?)", (page, target.url))
        return new

    def finish(self, url: str, result: Result) -> None:
        with self._db:
            self._db.execute(
                "UPDATE urls SET state = ?, status = ?, reason = ?, milliseconds = ? WHERE url = ?", (*result, url)
            )

    def waiting(self) -> list[Target]:
        rows = self._db.execute("SELECT url, depth, read_links FROM urls WHERE state = 'waiting' ORDER BY depth")
        return [Target(url, depth, bool(read_links)) for url, depth, read_links in rows]

    def counts(self) -> dict[str, int]:
        """How many URLs are in each state."""
        counted = dict(self._db.execute("SELECT state, count(*) FROM urls GROUP BY state").fetchall())
        return {state: counted.get(state, 0) for state in ("waiting", "ok", "dead", "skipped")}

    def rows(self) -> list[Row]:
        """All URLs, dead ones first."""
        pages: dict[str, list[str]] = {}
        for page, url in self._db.execute("SELECT page, url FROM found ORDER BY page"):
            pages.setdefault(url, []).append(page)
        rows = self._db.execute(
            "SELECT url, state, status, reason, milliseconds FROM urls ORDER BY state != 'dead', url"
        )
        return [Row(url, state, status, reason, ms, pages.get(url, [])) for url, state, status, reason, ms in rows]
