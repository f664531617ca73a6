"""The keys of the log on partitions; log.py says what is in them."""

from collections.abc import Sequence

PARTITIONS = "eventr:partitions"


def key(number: int | str, kind: str) -> str:
    return f"eventr:{kind}:{{{number}}}"


def keys(number: int | str, *kinds: str) -> list[str]:
    return [key(number, kind) for kind in kinds]


def leases(number: int | str, consumer: str) -> list[str]:
    return [f"eventr:pending:{{{number}}}:{consumer}", f"eventr:holders:{{{number}}}:{consumer}"]


def cursor(consumer: str) -> str:
    return f"eventr:cursor:{{{consumer}}}"


def numbers(members: Sequence[bytes]) -> list[int]:
    """Partitions of the index; what is no number in it is none."""
    return [int(member) for member in members if member.isdigit()]


def as_number(word: bytes | None) -> int:
    """Bad data count as nothing."""
    return int(word) if word is not None and word.isdigit() else 0
