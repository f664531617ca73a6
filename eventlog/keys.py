"""The keys of the log on partitions; log.py says what is in them.

All keys of this chapter begin with `eventlog:`. The design comes from a program whose keys begin with `eventr:`, and
whose partitions are numbered in minutes; both can be in one Redis. So this prefix belongs to this chapter alone: what
its scripts delete, they have written.
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
    """Partitions of the index; what is no number in it is none."""
    return [int(member) for member in members if member.isdigit()]


def as_number(word: bytes | None) -> int:
    """Bad data count as nothing."""
    return int(word) if word is not None and word.isdigit() else 0
