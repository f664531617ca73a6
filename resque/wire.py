"""The JSON format of Resque, as Ruby and Node read it (resque 3.0, node-resque 9.7).

    job       {"class": C, "queue": Q, "args": [...]}    in Node's order; Ruby omits `queue` and reads both
    working   {"token": T, "run_at": DATE, "worker": NAME, "queue": Q, "payload": JOB}     `token` is ours
    failure   {"failed_at": DATE, "payload": JOB, "exception": CLASS, "error": TEXT, "backtrace": [LINE, ...],
               "worker": ID, "queue": Q}

Node deletes by value: it parses a record, serializes it again and asks Redis to remove that text. So JavaScript's
JSON.stringify(JSON.parse(text)) must return exactly the text that we write: compact, raw UTF-8, numbers as JavaScript
writes them (ECMA-262, Number::toString), no integer above 2^53, keys that look like array indexes first.
"""

import hashlib
import json
import math
import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from asynckit.ids import new_id

MAX_INTEGER = 2**53
UNREADABLE = "Unreadable"
"""The class in the failure record of anything that is not a valid job: a null payload stops Ruby's "retry all". No
program has this class, so a retry of such a record fails again and changes nothing else.
"""
MAX_JOB = 1 << 20  # bytes; store larger data elsewhere and put its name into the job

# Numbers stay strings, because Python limits the digits of an integer.
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str)
_INDEX = re.compile("0|[1-9][0-9]{0,9}", re.ASCII)


class BadJob(ValueError):
    """Not a valid job, or one that Ruby, Node and Python would read differently."""


class Job(NamedTuple):
    """One job of a queue. `raw` is its exact JSON, by which it is moved and deleted."""

    name: str
    """What to do; Resque calls it the class."""
    queue: str
    args: list[Any]
    raw: str

    @property
    def id(self) -> str | None:
        """The `id` in the first argument, a place that every client of Resque preserves; None if there is none."""
        first = self.args[0] if self.args else None
        found = first.get("id") if isinstance(first, dict) else None
        return found if isinstance(found, str) else None

    @property
    def key(self) -> str:
        """Identifies the job for its counters of attempts and crashes and for its lock (job_key in prelude.lua)."""
        if self.id:
            return self.id
        try:
            text = "\0".join((self.queue, exact_member(self.raw, "class"), exact_member(self.raw, "args")))
        except RecursionError:
            text = self.raw
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def make_job(queue: str, name: str, args: Sequence[Any], job_id: str | None = None) -> Job:
    """A job ready to be enqueued. If its first argument is an object, it gets an `id`: `job_id`, its own, or a new one.

    Raises BadJob for values that Ruby, Node or Python could not read, and for a job larger than MAX_JOB.
    """
    if not queue or not name:
        raise BadJob("a job needs a queue and a class")
    arguments = list(args)
    first = arguments[0] if arguments else None
    if isinstance(first, dict):
        arguments[0] = {**first, "id": job_id or first.get("id") or new_id("job")[1:33]}
    elif job_id is not None:
        raise BadJob("a job with an id needs an object as its first argument")
    raw = f"{_head(name, queue)}{encode(arguments)}}}"
    # A character has at most 4 bytes. claim.lua would set a larger job aside.
    if 4 * len(raw) > MAX_JOB and (size := len(raw.encode())) > MAX_JOB:
        raise BadJob(f"larger than {MAX_JOB} bytes: {size}")
    return Job(name, queue, arguments, raw)


@lru_cache(maxsize=1000)
def _head(name: str, queue: str) -> str:
    return encode({"class": name, "queue": queue})[:-1] + ',"args":'


def read_job(raw: bytes | str, queue: str = "") -> Job:
    """Read a job that any program may have written; `queue` is the name of its queue. Raises BadJob."""
    try:
        members = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadJob(f"not JSON: {error}") from None
    text = raw if isinstance(raw, str) else raw.decode()  # orjson reads only UTF-8
    return job_of(members, queue, text)


def job_of(members: Any, queue: str, raw: str) -> Job:
    """Read a job from parsed JSON. Raises BadJob. Ruby omits the queue; missing `args` means no arguments, and so does
    `{}`, into which Node's scripts turn an empty list.
    """
    if not isinstance(members, dict):
        raise BadJob("not a JSON object")
    name = members.get("class")
    if not isinstance(name, str) or not name:
        raise BadJob('no "class"')
    args = members.get("args")
    if args is None or args == {}:
        args = []
    elif not isinstance(args, list):
        args = [args]
    named = members.get("queue")
    return Job(name, queue or (named if isinstance(named, str) else ""), args, raw)


def with_queue(job: Job) -> Job:
    """The job with its queue in its text, which a delayed job needs. Jobs of Ruby do not have it."""
    if orjson.loads(job.raw).get("queue") == job.queue:
        return job
    # of two members, the last counts in Ruby, Node and Python
    raw = f'{job.raw.rstrip()[:-1]},"queue":{encode(job.queue)}}}'
    return job._replace(raw=raw)


def exact_member(text: str, name: str) -> str:
    """The exact text of a member's value in a JSON object that orjson accepts: 1.0 stays 1.0, large integers are not
    rounded. "" if the member is missing; if it occurs several times, the last one counts, as in every JSON parser.

    Raises RecursionError if the value is nested too deeply.
    """
    found, at = "", _blank(text, 0) + 1
    while text[at := _blank(text, at)] != "}":
        key, at = _SCANNER.raw_decode(text, at)
        at = _blank(text, _blank(text, at) + 1)  # after the colon
        start = at
        _, at = _SCANNER.raw_decode(text, at)
        if key == name:
            found = text[start:at]
        at = _blank(text, at)
        at += text[at] == ","
    return found


def _blank(text: str, at: int) -> int:
    """The index of the next character that is not white space."""
    while text[at] in " \t\r\n":
        at += 1
    return at


def encode(value: Any) -> str:
    """JSON as JavaScript writes it. Raises BadJob for values that JavaScript cannot represent."""
    try:
        return orjson.dumps(value if _is_texts(value) else _as_javascript(value)).decode()
    except TypeError as error:  # orjson.JSONEncodeError is a TypeError: a lone surrogate, a set, nesting too deep
        raise BadJob(str(error)) from None
    except RecursionError:
        raise BadJob("nested too deeply") from None


def _is_texts(value: Any) -> bool:
    """Whether it consists only of strings, as most jobs do: then no conversion is needed."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or key[:1].isdigit() or not (type(item) is str or _is_texts(item)):
                return False
        return True
    if kind is list:
        for item in value:  # noqa: SIM110  a generator would cost as much as all the rest
            if not _is_texts(item):
                return False
        return True
    return kind is str


def _as_javascript(value: Any) -> Any:
    match value:
        case str() | bool() | None:
            return value
        case int():
            if abs(value) > MAX_INTEGER:
                raise BadJob(f"{value} is above 2^53, which JavaScript would round: send it as a string")
            return value
        case float():
            return orjson.Fragment(_javascript_number(value))
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise BadJob("an object's keys must be strings")
            indexes = [key for key in value if key[:1].isdigit() and _INDEX.fullmatch(key) and int(key) < 2**32 - 1]
            return {key: _as_javascript(value[key]) for key in (*sorted(indexes, key=int), *value)}
        case list() | tuple():
            return [_as_javascript(item) for item in value]
        case _:
            raise BadJob(f"JSON has no {type(value).__name__}")


def _javascript_number(number: float) -> str:
    """ECMA-262, Number::toString: the shortest digits that identify this number, with an exponent only far from 1."""
    if not math.isfinite(number):
        raise BadJob(f"JSON has no {number}")
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = f"{abs(number)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))  # digits before the decimal point
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        head, tail = digits[:point].ljust(point, "0"), digits[point:]
        return f"{sign}{head}.{tail}" if tail else sign + head
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def digest(text: str) -> str:
    """A short digest of an id or of a unique lock: 96 bits in 16 characters."""
    return b64encode(hashlib.blake2b(text.encode(), digest_size=12).digest()).decode()


def working_since(now: float) -> str:
    """The date member of a `working` record, in Ruby's format."""
    return f'"run_at":"{datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}"'


def failure(
    job: Job | None,
    *,
    queue: str,
    worker: str,
    exception: str,
    error: str,
    backtrace: Sequence[str],
    now: float,
    raw: str,
) -> str:
    """A record of `failed` that the dashboards of Ruby and Node can show. Without a job, `raw` is kept as a string
    beside a payload that every client can read.
    """
    head = encode({"failed_at": failed_at(now)})[:-1]
    rest = {
        "exception": exception,
        "error": readable(error),
        "backtrace": [readable(line) for line in backtrace],  # null or a single string breaks one of the dashboards
        "worker": worker,
        "queue": queue,
    }
    if job is None:
        rest["queue"] = queue or UNREADABLE  # Ruby's "retry all" stops at a record without a queue
        payload = encode({"class": UNREADABLE, "queue": rest["queue"], "args": []})
        return f'{head},"payload":{payload},{encode(rest | {"raw": readable(raw)})[1:]}'
    return f'{head},"payload":{job.raw},{encode(rest)[1:]}'


def failed_at(now: float) -> str:
    """A date in the only format that both Ruby's dashboard and Node show."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y/%m/%d %H:%M:%S UTC")


def heartbeat_at(now: float) -> str:
    """A date that Ruby's Time.parse reads; any other format would prevent every Ruby worker from starting."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")


def started_at(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S +0000")


def ping(name: str, queues: Sequence[str], now: float) -> str:
    """Node's heartbeat; the time in whole seconds."""
    return encode({"time": int(now), "name": name, "queues": ",".join(queues)})


def readable(text: str) -> str:
    """Any string as valid UTF-8: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode()
