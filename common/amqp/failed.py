"""The failed list of a queue in RabbitMQ, on the command line.

AMQP reads a queue from its head only, so each command reads all of it.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from aio_pika.abc import AbstractIncomingMessage

from asynckit.printing import exit_after
from common.amqp.link import ANSWER_SECONDS, BROKEN, describe, one_line
from common.amqp.queues import WorkQueue, make_message
from common.mail.errors import CannotAccept, NoAnswer
from common.services.service import find_running
from common.settings import Settings, read_settings


def main(words: Sequence[str], program: str, open_queue: Callable[[Settings], WorkQueue]) -> None:
    arguments = read_arguments(words, program)
    settings = find_running(read_settings(), "rabbitmq")
    exit_after(lambda: asyncio.run(execute(open_queue(settings), arguments)))


def read_arguments(words: Sequence[str], program: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(program, description=__doc__)
    failed = parser.add_subparsers(metavar="COMMAND", required=True).add_parser("failed", help="the failed list")
    commands = failed.add_subparsers(metavar="COMMAND", required=True, dest="command")
    commands.add_parser("list", help="the failed emails, the oldest first")
    for name, text in (("requeue", "put failed emails back into the queue"), ("remove", "remove them for good")):
        chosen = commands.add_parser(name, help=text).add_mutually_exclusive_group(required=True)
        chosen.add_argument("ids", nargs="*", default=[], metavar="ID", help="as `failed list` prints it")
        chosen.add_argument("--all", action="store_true", help="all of them")
    return parser.parse_args(words)


async def execute(queue: WorkQueue, arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    try:
        async with reading(queue) as messages:
            if arguments.command == "list":
                return await show_all(messages)
            return await change(queue, messages, arguments)
    except BrokenPipeError:  # the output is closed, as in `| head`. BROKEN contains this error, too
        raise
    except (CannotAccept, NoAnswer, *BROKEN) as error:
        print(describe(error), file=sys.stderr)
        return 1
    finally:
        await queue.link.close()  # the messages that are not acknowledged are in the failed list again


@asynccontextmanager
async def reading(queue: WorkQueue) -> AsyncIterator[AsyncIterator[AbstractIncomingMessage]]:
    """All messages that are in the failed list now. Each stays there unless it is acknowledged."""
    failed = await (await queue.link.channel()).declare_queue(queue.failed, passive=True)

    async def messages() -> AsyncIterator[AbstractIncomingMessage]:
        for _ in range(failed.declaration_result.message_count or 0):
            if (message := await failed.get(fail=False, timeout=ANSWER_SECONDS)) is None:
                return
            yield message

    yield messages()


async def show_all(messages: AsyncIterator[AbstractIncomingMessage]) -> int:
    number = 0
    async for message in messages:
        number += 1
        body = one_line(message.body.decode(errors="replace"), 120)
        print(f"{number:6}  {failed_at(message)}  {shown_id(message)}  {body}  {reason(message)}")
    print(f"{number:,} failed emails")
    return 0


def shown_id(message: AbstractIncomingMessage) -> str:
    """The id without control characters, which another program may have put there; "None" if there is no id."""
    return one_line(str(message.message_id))


def failed_at(message: AbstractIncomingMessage) -> str:
    at = message.headers.get("failed_at")
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if isinstance(at, int) else "-"
    except (OverflowError, OSError, ValueError):  # there is no such year
        return "-"


def reason(message: AbstractIncomingMessage) -> str:
    """Why the message is there: the worker's error, or RabbitMQ's reason if RabbitMQ has moved it."""
    if (error := message.headers.get("error")) is not None:
        return one_line(str(error), 120)
    return f"moved by RabbitMQ: {one_line(str(message.headers.get('x-first-death-reason')))}"


async def change(
    queue: WorkQueue, messages: AsyncIterator[AbstractIncomingMessage], arguments: argparse.Namespace
) -> int:
    """Requeue or remove the chosen messages. Returns the exit status: 1 if one of the ids is not in the failed list."""
    chosen, found, done = set(arguments.ids), set[str](), 0
    async for message in messages:
        names = {shown_id(message), str(message.message_id)}
        if not arguments.all and not names & chosen:
            continue
        if arguments.command == "requeue":
            await queue.publish(make_message(message.body, message.message_id))
        await message.ack()
        found |= names
        done += 1
    print(f"{done:,} emails are {'back in the queue' if arguments.command == 'requeue' else 'removed'}")
    missing = sorted(chosen - found)
    for name in missing:
        print(f"not in the failed list: {one_line(name)}", file=sys.stderr)
    return 1 if missing else 0
