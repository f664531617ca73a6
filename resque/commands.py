"""`resque [--redis URL] COMMAND`: inspect and repair the queue; `--help` lists the commands.

Exit status: 0 if all is well; 1 if nothing matched, a problem was found, Redis is down, or the output could not be
written; 2 for a wrong command; 141 if the reader of the output has closed it, as in `| head`: then the command stopped
there.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from asynckit.printing import are_utf8, exit_after
from asynckit.redis_client import describe_for, redis_client

from . import show
from .connections import namespace_for
from .delayed import DelayedJobs
from .doctor import Doctor
from .failed import ID_LENGTH, CannotRequeue, FailedList, Failure, NotThere
from .keys import Keys
from .observe import Observer
from .queue import Queue
from .queues import Queues
from .states import QueueState
from .wire import BadJob

DEFAULT_URL = "redis://127.0.0.1:6379/0"
ALIKE = 10  # how many findings of one kind are listed

Command = Callable[[Redis, Keys, argparse.Namespace], Awaitable[int]]


def main() -> None:
    """The console script `resque`."""
    exit_after(lambda: execute(sys.argv[1:]))


def execute(words: Sequence[str], url: str = DEFAULT_URL, program: str = "resque", where: str = "") -> int:
    """Run one command and return its exit status. `where` is added to the error when Redis cannot be reached."""
    arguments = parser(program, url).parse_args(words)
    if not are_utf8(words):
        parser(program, url).error("an argument is not valid UTF-8")
    return asyncio.run(ask(arguments, where))


def parser(program: str, url: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(program, description="Inspect and repair the queue.")
    parser.add_argument("--redis", metavar="URL", default=url, help="where Redis is, such as redis://127.0.0.1:6379/0")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    common = argparse.ArgumentParser(add_help=False)
    text = "the prefix of every key (default: resque, in a cluster {resque})"
    common.add_argument("--namespace", default=None, help=text)

    def add(
        to: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, command: Command, text: str
    ) -> argparse.ArgumentParser:
        added = to.add_parser(name, help=text, description=text, parents=[common])
        added.set_defaults(command=command)
        return added

    add(commands, "stats", stats, "show how many jobs are waiting, in flight, delayed and failed").add_argument(
        "--json", action="store_true", help="as JSON"
    )
    peek = add(commands, "peek", peek_queue, "the jobs in a queue, the oldest first")
    peek.add_argument("queue", metavar="QUEUE")
    peek.add_argument("--start", type=whole, default=0, help="skip the first N jobs")
    peek.add_argument("--count", type=whole, default=20, help="show N (default: 20)")
    text = "check that the keys are consistent, and that the settings of Redis are safe"
    add(commands, "doctor", examine, text).add_argument(
        "--repair", action="store_true", help="repair what is safe to repair"
    )

    text = "the failed jobs: list, retry or remove them"
    failed = commands.add_parser("failed", help=text, description=text).add_subparsers(metavar="COMMAND", required=True)
    listing = add(failed, "list", list_failed, "the failed jobs, the newest first, each with its number and its id")
    listing.add_argument("--before", type=whole, default=None, help="only those with a smaller number")
    listing.add_argument("--count", type=whole, default=20, help="show N (default: 20)")
    for name, command, text in (
        ("requeue", requeue_failed, "put failed jobs back into their queues"),
        ("remove", remove_failed, "remove failed jobs for good"),
    ):
        chosen = add(failed, name, command, text).add_mutually_exclusive_group(required=True)
        chosen.add_argument(
            "which", nargs="?", metavar="ID", help="its id, or its number, which changes when others are removed"
        )
        chosen.add_argument("--all", action="store_true", help="all of them")
    return parser


def whole(text: str) -> int:
    """A whole number from 0, of at most 12 digits."""
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


async def ask(arguments: argparse.Namespace, where: str) -> int:
    try:
        namespace = arguments.namespace or namespace_for(arguments.redis)
        client = redis_client(arguments.redis, key=namespace)
    except ValueError as error:
        print(f"--redis: {error}", file=sys.stderr)
        return 2
    async with client as redis:
        try:
            return int(await arguments.command(redis, Keys(namespace), arguments))
        except RedisError as error:
            print(f"{describe_for(arguments.redis, error)}{where}", file=sys.stderr)
            return 1


async def stats(redis: Redis, keys: Keys, arguments: argparse.Namespace) -> int:
    observer, reader, failed = Observer(redis, keys), Queues(redis, keys), FailedList(redis, keys)
    delayed = DelayedJobs(Queue(redis, keys.namespace))
    queues, (count, more) = await reader.states(await reader.names()), await delayed.count()
    figures = {
        "waiting": sum(queue.length or 0 for queue in queues),
        "in_flight": await observer.in_flight(),
        "delayed": count,
        "overdue": (await delayed.overdue())[0],
        "failed_list": await failed.count(),
        "processes": await observer.processes(),
        "ever": await observer.totals(),
    }
    if arguments.json:
        of_queues = {
            queue.name: {"waiting": queue.length, "oldest_seconds": queue.oldest_seconds, "paused": queue.paused}
            for queue in queues
        }
        figures["leader"] = await observer.leader()
        print(orjson.dumps(figures | {"queues": of_queues}, option=orjson.OPT_INDENT_2).decode())
    else:
        print_stats(figures, more, await observer.leader(), await failed.elsewhere(), queues)
    return 0


def print_stats(
    figures: dict[str, Any], more: bool, leader: str | None, elsewhere: dict[str, int], queues: Sequence[QueueState]
) -> None:
    for name in ("waiting", "in_flight", "delayed", "overdue", "failed_list", "processes"):
        print(f"{name.replace('_', ' '):12} {figures[name]:>12,}{' or more' if name == 'delayed' and more else ''}")
    print("all time     " + ", ".join(f"{count:,} {show.one_line(name)}" for name, count in figures["ever"].items()))
    print(f"delayed jobs are promoted by {show.one_line(leader or 'no program')}")
    for name, count in elsewhere.items():
        print(f"failed in Ruby's list {show.one_line(name)}: {count:,} (its own programs retry and remove them)")
    for queue in queues:
        length = "not a list" if queue.length is None else f"{queue.length:,}"
        oldest = f", the oldest has waited {show.duration(queue.oldest_seconds)}" if queue.length else ""
        paused = "" if queue.paused is None else f", paused for our workers: {show.one_line(queue.paused)}"
        print(f"queue {show.one_line(queue.name)}: {length}{oldest}{paused}")


async def peek_queue(redis: Redis, keys: Keys, arguments: argparse.Namespace) -> int:
    found = await Queues(redis, keys).jobs(arguments.queue, arguments.start, arguments.count)
    for item in found:
        try:
            job = item.job(arguments.queue) if item.whole else None
        except BadJob as error:
            text = show.one_line(show.bytes_as_text(item.text), 100)
            print(f"{item.place + 1:6}  invalid: {show.one_line(str(error), 100)}: {text}")
            continue
        text = f"{show.title(job)} {show.arguments(job)}" if job else f"{show.size(item.size)}, too large to show"
        print(f"{item.place + 1:6}  {show.one_line(text, 200)}")
    if not found:
        print(f"no jobs in {show.one_line(arguments.queue)}" + (" from there on" if arguments.start else ""))
    return 0 if found else 1


async def list_failed(redis: Redis, keys: Keys, arguments: argparse.Namespace) -> int:
    failed = FailedList(redis, keys)
    for failure in await failed.list(arguments.before, arguments.count):
        print(in_a_line(failure))
    print(f"{await failed.count():,} failed jobs")
    return 0


def in_a_line(failure: Failure) -> str:
    what = f"{show.title(failure.job)} {show.arguments(failure.job)}" if failure.job else "invalid job"
    what = f"retried  {what}" if failure.retried else what
    why = f"{failure.exception}: {failure.error}" if failure.exception or failure.error else failure.flaw
    parts = (show.moment(failure.failed_at), show.one_line(what, 120), show.one_line(why, 120))
    return f"{failure.number:6}  {failure.id}  " + "  ".join(parts)


async def chosen(failed: FailedList, which: str) -> Failure:
    """The failed job with this id or number. Raises NotThere."""
    if which.isascii() and which.isdigit() and len(which) < ID_LENGTH:
        return await failed.numbered(int(which))
    if len(which) != ID_LENGTH:
        raise NotThere(f"neither a number nor an id of {ID_LENGTH} characters: {which}")
    return await failed.find(which)


async def requeue_failed(redis: Redis, keys: Keys, arguments: argparse.Namespace) -> int:
    failed = FailedList(redis, keys)
    if arguments.all:
        done, left = await failed.requeue_all()
        print(
            f"{done:,} jobs are back in their queues"
            + (f"; {left:,} stay: already retried, or not a valid job" if left else "")
        )
        return 0 if done and not left else 1
    try:
        failure = await chosen(failed, arguments.which)
        failure = await failed.requeue(failure.id, failure.number)
    except (NotThere, CannotRequeue) as error:
        print(show.one_line(str(error)), file=sys.stderr)
        return 1
    print(f"{failure.id} is back in {show.one_line(failure.queue)}")
    return 0


async def remove_failed(redis: Redis, keys: Keys, arguments: argparse.Namespace) -> int:
    failed = FailedList(redis, keys)
    if arguments.all:
        count = await failed.remove_all()
        print(f"removed {count:,} failed jobs")
        return 0 if count else 1
    try:
        failure = await chosen(failed, arguments.which)
        failure = await failed.remove(failure.id, failure.number)
    except NotThere as error:
        print(show.one_line(str(error)), file=sys.stderr)
        return 1
    print(f"removed {failure.id}")
    return 0


async def examine(redis: Redis, keys: Keys, arguments: argparse.Namespace) -> int:
    told: Counter[str] = Counter()
    left = 0
    for finding in await Doctor(redis, keys).examine():
        repaired = arguments.repair and finding.repair is not None and await finding.repair()
        left += not repaired
        told[finding.what] += 1
        if told[finding.what] > ALIKE:
            continue
        print(f"{show.one_line(finding.key, 200)}\n    {show.one_line(finding.what)}")
        if repaired:
            print(f"    repaired: {finding.remedy}")
        elif finding.remedy:
            print(
                "    not repaired: it has changed in the meantime"
                if arguments.repair
                else f"    --repair would {finding.remedy}"
            )
    for what, number in told.items():
        if number > ALIKE:
            print(f"and {number - ALIKE:,} more of this kind: {show.one_line(what)}")
    print(f"{left:,} found{', and not repaired' if arguments.repair else ''}" if left else "no problems found")
    return 1 if left else 0


if __name__ == "__main__":
    main()
