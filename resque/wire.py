"""What the JSON of Resque looks like, and how Ruby and Node read it (resque 3.0, node-resque 9.7).

    job       {"class": C, "queue": Q, "args": [...]}    the order of Node; Ruby leaves `queue` out and reads either
    working   {"token": T, "run_at": DATE, "worker": NAME, "queue": Q, "payload": JOB}     `token` is ours
    failure   {"failed_at": DATE, "payload": JOB, "exception": CLASS, "error": TEXT, "backtrace": [LINE, ...],
               "worker": ID, "queue": Q}

Node deletes by value: it parses a record, writes it again as JSON and asks Redis to remove that text. So what we write
must come out of JavaScript's JSON.stringify(JSON.parse(text)) as it went in: compact, raw UTF-8, numbers as JavaScript
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
MAX_JOB = 1 << 20  # bytes; what is larger belongs elsewhere, and its name into the job

# Numbers are left as the texts they are: Python limits the digits of an integer.
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str)
_INDEX = re.compile("0|[1-9][0-9]{0,9}", re.ASCII)


class BadJob(ValueError):
    """This is no job, or none that all three languages would read alike."""


class Job(NamedTuple):
    """One job as it stands in a queue. `raw` is its exact JSON, by which it is moved and deleted."""

    name: str
    """The class, in Resque's words: what is to be done."""
    queue: str
    args: list[Any]
    raw: str

    @property
    def id(self) -> str | None:
        """The `id` in the first argument, where every foreign client keeps it; None if it has none."""
        first = self.args[0] if self.args else None
        found = first.get("id") if isinstance(first, dict) else None
        return found if isinstance(found, str) else None

    @property
    def key(self) -> str:
        """By what its attempts and crashes are counted, and by what it holds a lock: as job_key in prelude.lua."""
        if self.id:
            return self.id
        try:
            text = "\0".join((self.queue, exact_member(self.raw, "class"), exact_member(self.raw, "args")))
        except RecursionError:
            text = self.raw
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def make_job(queue: str, name: str, args: Sequence[Any], job_id: str | None = None) -> Job:
    """A job ready to be enqueued. If its first argument is an object, that gets an `id`: this one, its own, or a new
    one.

    Raises BadJob for what one of the languages could not read, and for what is larger than MAX_JOB.
    """
    if not queue or not name:
        raise BadJob("a job needs a queue and a class")
    arguments = list(args)
    first = arguments[0] if arguments else None
    if isinstance(first, dict):
        arguments[0] = {**first, "id": job_id or first.get("id") or new_id("job")[1:33]}
    elif job_id is not None:
        raise BadJob("an id has its place in the first argument, which must be an object")
    raw = f"{_head(name, queue)}{encode(arguments)}}}"
    if (size := len(raw.encode())) > MAX_JOB:  # claim.lua would set it aside
        raise BadJob(f"larger than {MAX_JOB} bytes: {size}")
    return Job(name, queue, arguments, raw)


@lru_cache(maxsize=1000)
def _head(name: str, queue: str) -> str:
    return encode({"class": name, "queue": queue})[:-1] + ',"args":'


def read_job(raw: bytes | str, queue: str = "") -> Job:
    """Read what stands in a queue, written by anybody; `queue` is the list's name. Raises BadJob."""
    try:
        members = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadJob(f"not JSON: {error}") from None
    text = raw if isinstance(raw, str) else raw.decode()  # what orjson has read is UTF-8
    return job_of(members, queue, text)


def job_of(members: Any, queue: str, raw: str) -> Job:
    """The same for JSON that has been parsed. Ruby leaves the queue out; no `args` are no arguments, and `{}` is what
    Node's scripts make of an empty list.
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
    """The job as it may be delayed: there only its own text says which queue it is for, and Ruby leaves that out."""
    if orjson.loads(job.raw).get("queue") == job.queue:
        return job
    raw = f'{job.raw.rstrip()[:-1]},"queue":{encode(job.queue)}}}'  # of two, the last counts, in each of the languages
    return job._replace(raw=raw)


def exact_member(text: str, name: str) -> str:
    """The exact text of a member's value in a JSON object that orjson has read: 1.0 stays 1.0, large integers are not
    rounded. "" if there is none; of several of that name the last one counts, as for every reader.

    Raises RecursionError for what is nested too deep.
    """
    found, at = "", _blank(text, 0) + 1
    while text[at := _blank(text, at)] != "}":
        key, at = _SCANNER.raw_decode(text, at)
        at = _blank(text, _blank(text, at) + 1)  # behind the colon
        start = at
        _, at = _SCANNER.raw_decode(text, at)
        if key == name:
            found = text[start:at]
        at = _blank(text, at)
        at += text[at] == ","
    return found


def _blank(text: str, at: int) -> int:
    """Where the white space that begins here ends."""
    while text[at] in " \t\r\n":
        at += 1
    return at


def encode(value: Any) -> str:
    """JSON as JavaScript writes it. Raises BadJob for what it cannot keep."""
    try:
        return orjson.dumps(value if _is_texts(value) else _as_javascript(value)).decode()
    except TypeError as error:  # orjson.JSONEncodeError is one: a lone surrogate, a set, nesting too deep
        raise BadJob(str(error)) from None
    except RecursionError:
        raise BadJob("nested too deep") from None


def _is_texts(value: Any) -> bool:
    """Whether it is made of nothing but texts, as most jobs are: then there is nothing to be careful about."""
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
                raise BadJob(f"{value} is above 2^53, where JavaScript rounds: send it as a text")
            return value
        case float():
            return orjson.Fragment(_javascript_number(value))
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise BadJob("an object's keys must be texts")
            indexes = [key for key in value if key[:1].isdigit() and _INDEX.fullmatch(key) and int(key) < 2**32 - 1]
            return {key: _as_javascript(value[key]) for key in (*sorted(indexes, key=int), *value)}
        case list() | tuple():
            return [_as_javascript(item) for item in value]
        case _:
            raise BadJob(f"JSON has no {type(value).__name__}")


def _javascript_number(number: float) -> str:
    """ECMA-262, Number::toString: the shortest digits that mean this number, with an exponent only far from 1."""
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
    """A short stand-in for an id or for a kind of job: 96 bits in 16 characters."""
    return b64encode(hashlib.blake2b(text.encode(), digest_size=12).digest()).decode()


def working_since(now: float) -> str:
    """The date in a `working` record, in Ruby's form."""
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
    """A record of `failed` that both dashboards can show. Without a job, `raw` is kept, as a text, beside a payload
    that every client can read.
    """
    head = encode({"failed_at": failed_at(now)})[:-1]
    rest = {
        "exception": exception,
        "error": readable(error),
        "backtrace": [
            readable(line) for line in backtrace
        ],  # a null or a single text breaks one dashboard or the other
        "worker": worker,
        "queue": queue,
    }
    if job is None:
        rest["queue"] = queue or UNREADABLE  # Ruby retries nothing that has no queue, and stops there
        payload = encode({"class": UNREADABLE, "queue": rest["queue"], "args": []})
        return f'{head},"payload":{payload},{encode(rest | {"raw": readable(raw)})[1:]}'
    return f'{head},"payload":{job.raw},{encode(rest)[1:]}'


def failed_at(now: float) -> str:
    """A date in the one form that Ruby's dashboard and Node both show."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y/%m/%d %H:%M:%S UTC")


def heartbeat_at(now: float) -> str:
    """What Ruby's Time.parse reads; anything else keeps every Ruby worker from starting."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")


def started_at(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S +0000")


def ping(name: str, queues: Sequence[str], now: float) -> str:
    """Node's sign of life; the time in whole seconds."""
    return encode({"time": int(now), "name": name, "queues": ",".join(queues)})


def readable(text: str) -> str:
    """Any text as valid UTF-8."""
    return text.encode("utf-8", "replace").decode()
