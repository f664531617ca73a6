"""The keys of the log on partitions; log.py describes their contents.

All keys of this library begin with `eventlog:`. The design comes from a program whose keys begin with `eventr:` and
whose partitions are numbered in minutes. Both programs can use the same Redis, because the scripts of this library
delete only keys with this prefix.
"""

from collections.abc import Sequence

PARTITIONS = "eventlog:partitions"


def key(number: int | str, kind: str) -> str:
    return f"eventlog:{kind}:{{{number}}}"


def keys(number: int | str, *kinds: str) -> list[str]:
    return [key(number, kind) for kind in kinds]


def leases(number: int | str, consumer: str) -> list[str]:
    return [f"eventlog:pending:{{{number}}}:{consumer}", f"eventlog:holders:{{{number}}}:{consumer}"]


def cursor(consumer: str) -> str:
    return f"eventlog:cursor:{{{consumer}}}"


def numbers(members: Sequence[bytes]) -> list[int]:
    """The numbers of partitions, without invalid members."""
    return [int(member) for member in members if member.isdigit()]


def as_number(word: bytes | None) -> int:
    """0 for invalid data."""
    return int(word) if word is not None and word.isdigit() else 0
