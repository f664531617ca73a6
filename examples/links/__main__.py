"""`python -m examples.links URL`: check the links of a site.

Exit status: 0 all links work, 1 some are dead, 2 a mistake in the command, 130 stopped by Ctrl-C (run the same command
again to go on).
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from asynckit.redis_client import CALL_ERRORS, describe
from common.processes.process import run, stop_requested
from common.processes.terminal import own_terminal
from common.services.service import Service
from common.settings import Settings, exit_with_usage_error, read_settings
from resque import Definition, Queue, Scaling, Worker, open_connections

from .crawl import JOB, Crawl
from .fetch import Fetcher, new_session
from .logins import origin_of, split_login
from .report import write_reports
from .store import Store

LOOK_SECONDS = 0.1
STOPPED = 130


def main(words: Sequence[str]) -> int:
    arguments = parser().parse_args(words)
    settings = read_settings()
    with own_terminal(), ExitStack() as stack:
        if settings.redis_url is None:
            valkey = stack.enter_context(Service(settings, "valkey"))
            settings = settings.model_copy(update={"valkey_port": valkey.ports["VALKEY_PORT"]})
        status: list[int] = []
        logging.disable(logging.INFO)  # the progress bar shows what the worker does
        run(check(arguments, settings, status))
        return status[0]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m examples.links", description="Check the links of a site.")
    parser.add_argument("url", type=http_url, help="the first page")
    parser.add_argument("--depth", type=int, default=3, help="follow links this many steps (default: 3)")
    parser.add_argument("--host", action="append", default=[], help="read pages of this host too")
    parser.add_argument("--per-second", type=float, default=5.0, help="requests to each host (default: 5)")
    parser.add_argument("--jobs", type=int, default=20, help="requests at a time (default: 20)")
    parser.add_argument("--private", action="store_true", help="allow addresses of private networks")
    parser.add_argument("--out", type=Path, help="folder for the reports (default: in .data/links)")
    return parser


def http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        _ = parts.port, text.encode()  # an argument may contain bytes that are not UTF-8
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:  # not repeated: it may contain a password
        raise argparse.ArgumentTypeError("expected an http or https URL")
    url = urldefrag(text).url
    return url if parts.path else f"{url}/"


async def check(arguments: argparse.Namespace, settings: Settings, status: list[int]) -> None:
    console = Console(stderr=True)
    url, login = split_login(arguments.url)  # only the fetcher gets the password: no job, report or log has it
    name = f"{urlsplit(url).hostname}-{sha256(url.encode()).hexdigest()[:8]}"
    folder = arguments.out or settings.data_dir / "links" / name
    store = Store(settings.data_dir / "links" / f"{name}.sqlite")
    hosts = frozenset([urlsplit(url).hostname or "", *arguments.host])
    async with open_connections(settings.redis) as connections, new_session(private=arguments.private) as session:
        fetcher = Fetcher(session, arguments.per_second, private=arguments.private, logins={origin_of(url): login})
        crawl = Crawl(store, Queue(connections.commands), fetcher, hosts, arguments.depth)
        try:
            await crawl.start(url)
        except CALL_ERRORS as error:
            exit_with_usage_error(describe(error))
        worker = Worker(
            connections, [crawl.name], {JOB: Definition(crawl.check)}, scaling=Scaling(arguments.jobs, arguments.jobs)
        )
        await worker.run(lambda: all_checked(store, console))
    counts = store.counts()
    if counts["waiting"]:
        console.print(f"stopped; {counts['waiting']} links wait: run the same command again to go on")
        status.append(STOPPED)
    else:
        bad = [row for row in store.rows() if row.state == "dead" or (row.url == url and row.state != "ok")]
        for row in bad:
            print(f"{row.status or '-'} {row.url} ({row.reason}), found on {', '.join(row.pages[:3]) or '-'}")
        for path in write_reports(store.rows(), url, folder):
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)
        status.append(1 if bad else 0)
    store.close()


async def all_checked(store: Store, console: Console) -> str:
    """Show the progress until no URL waits, or until Ctrl-C."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    stopping = asyncio.create_task(stop_requested())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None)
        while not stopping.done():
            counts = store.counts()
            done = sum(counts.values()) - counts["waiting"]
            words = f"{counts['dead']} dead, {counts['skipped']} skipped"
            progress.update(task, completed=done, total=sum(counts.values()), description=words)
            if not counts["waiting"]:
                stopping.cancel()
                return "all links are checked"
            await asyncio.wait([stopping], timeout=LOOK_SECONDS)
    return stopping.result()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
