"""Each accepted email arrives, once: the ids in the answers beside those at a mail server that knows them all."""

from collections.abc import Callable, Sequence

from lab.bench.web import CONNECTIONS
from lab.harness.figures import Facts
from lab.harness.processes import Lab


def ask_for_emails(lab: Lab, port: int, count: int, meanwhile: Callable[[], object] = lambda: None) -> Facts:
    """The facts of the load, with the ids of what was accepted."""
    options = ("--port", port, "--connections", CONNECTIONS, "--count", count, "--ids")
    return lab.measure("lab.load.http", *options, meanwhile=meanwhile)


def compare_ids(accepted: list[str], delivered: list[str]) -> dict[str, int]:
    """What happened to the ids of the answers, as numbers of emails."""
    return {
        "accepted": len(accepted),
        "delivered": len(delivered),
        "lost": len(set(accepted) - set(delivered)),
        "twice": len(delivered) - len(set(delivered)),
        "unasked": len(set(delivered) - set(accepted)),
    }


def each_once(account: dict[str, int], *loads: Facts) -> bool:
    """Whether it is so; and no connection of these loads broke, as what it was answered would be in no account."""
    return not (account["lost"] or account["twice"] or account["unasked"] or broken(loads))


def in_words(account: dict[str, int], *loads: Facts) -> str:
    words = "of {accepted:,} accepted {lost:,} lost, {twice:,} twice; {unasked:,} not accepted and yet sent"
    return words.format(**account) + f"; {broken(loads):,} connections broke"


def broken(loads: Sequence[Facts]) -> int:
    return sum(facts["broken"] for facts in loads)
