"""`make redis-cli`: a prompt where you can type commands for the Redis that the strategies use.

It prints replies as redis-cli does, has a history, and explains commands (`help LRANGE`). Without REDIS_URL it connects
to the embedded Redis that another terminal has started: with REDIS=sentinel to its primary. In a cluster it sends each
command to the node that has the key, and a command without a key, such as KEYS, to one of the nodes.
"""

import readline
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import redis
from redis.exceptions import MovedError, RedisError

from asynckit.cluster_thread import BlockingClusterRedis
from asynckit.redis_client import blocking_redis_client, describe
from common.services.service import running_redis
from common.settings import Settings, exit_with_usage_error, read_settings

PROMPT = "redis> "
HISTORY = "redis-cli.history"
HISTORY_LINES = 1000
LEAVE = {"exit", "quit"}
BLOCKING = {"subscribe", "psubscribe", "ssubscribe", "monitor"}
HELP = "Type a command such as KEYS *, or `help LRANGE`. Ctrl-D leaves."


def connect(settings: Settings) -> redis.Redis:
    """Return a client for REDIS_URL or the embedded Valkey. Exits with one line and status 2 if none is running."""
    url = running_redis(settings.data_dir) if settings.redis_url is None else settings.redis
    if url is None:
        exit_with_usage_error("no embedded Valkey is running: start `make run-5` or `make services`, or set REDIS_URL")
    return blocking_redis_client(url)


def answer(client: redis.Redis, line: str) -> str:
    """Run one line of input and return what to print."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        return f"(error) {error}"
    if not words:
        return ""
    if words[0].lower() == "help":
        return explain(client, words[1:])
    if words[0].lower() in BLOCKING:
        return f"(error) this prompt cannot wait for messages; use redis-cli for {words[0].upper()}"
    try:
        try:
            reply = reply_to(words, client)
        except MovedError as moved:
            if not isinstance(client, BlockingClusterRedis):
                raise
            reply = reply_to(words, client.node((moved.host, moved.port)))
    except redis.exceptions.ResponseError as error:
        return f"(error) {error}"
    except RedisError as error:
        return f"(error) {describe(error)}"
    return "\n".join(shown(reply))


def reply_to(words: list[str], client: redis.Redis) -> Any:
    """Read the reply directly, because the client's callbacks would turn it into Python objects."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command(*words)  # type: ignore[no-untyped-call]
        return connection.read_response()
    finally:
        client.connection_pool.release(connection)


def shown(reply: Any, indent: str = "") -> Iterator[str]:
    """The lines of a reply, in the format of redis-cli. Bytes that could control the terminal are escaped."""
    match reply:
        case None:
            yield "(nil)"
        case bool() | int():
            yield f"(integer) {int(reply)}"
        case bytes():
            yield quoted(reply)
        case str():
            yield reply
        case list() if not reply:
            yield "(empty array)"
        case list():
            width = len(str(len(reply)))
            for number, one in enumerate(reply, 1):
                head = f"{number:>{width}}) "
                first, *more = shown(one, indent + " " * len(head))
                yield (indent if number > 1 else "") + head + first
                yield from more
        case _:
            yield str(reply)


def quoted(text: bytes) -> str:
    body = text.decode("utf-8", "backslashreplace")
    escaped = "".join(c if c.isprintable() and c not in '"\\' else c.encode("unicode_escape").decode() for c in body)
    return '"' + escaped.replace('"', '\\"') + '"'


def explain(client: redis.Redis, words: list[str]) -> str:
    """The server's documentation of a command (COMMAND DOCS, in Redis 7 and Valkey)."""
    if not words:
        return HELP
    try:
        docs = client.execute_command("COMMAND DOCS", *words)  # type: ignore[no-untyped-call]
    except RedisError as error:
        return f"(error) {describe(error)}"
    if not docs:
        return f"there is no command {words[0]}"
    facts = docs if isinstance(docs, dict) else dict(zip(docs[::2], docs[1::2], strict=True))
    [(name, details)] = list(facts.items())[:1]
    known = details if isinstance(details, dict) else dict(zip(details[::2], details[1::2], strict=True))
    lines = [_text(name).upper()]
    lines += [f"  {label}: {_text(known[key])}" for label, key in LABELS if key in known]
    return "\n".join(lines)


LABELS = (("what it does", b"summary"), ("since version", b"since"), ("cost", b"complexity"), ("about", b"group"))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def complete(client: redis.Redis) -> None:
    """Complete command names with the tab key."""
    try:
        names = sorted(_text(name).upper() for name in client.execute_command("COMMAND LIST"))  # type: ignore[no-untyped-call]
    except RedisError:
        return
    readline.set_completer(lambda text, n: [*(x for x in names if x.startswith(text.upper())), None][n])
    readline.parse_and_bind("tab: complete")


def main() -> None:
    settings = read_settings()
    client = connect(settings)
    history = settings.data_dir / HISTORY
    interactive = sys.stdin.isatty()
    if interactive:
        complete(client)
        readline.set_history_length(HISTORY_LINES)
        with suppress(OSError):
            readline.read_history_file(history)
        print(HELP)
    try:
        while True:
            line = input(PROMPT if interactive else "")
            if line.strip().lower() in LEAVE:
                break
            if text := answer(client, line):
                print(text, flush=True)
    except (EOFError, KeyboardInterrupt):
        print() if interactive else None
    if interactive:
        with suppress(OSError):
            readline.write_history_file(history)


if __name__ == "__main__":
    main()
