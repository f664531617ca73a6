"""Checks that each accepted email arrives exactly once: compares the ids in the answers with those at a mail server."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from lab.bench.web import CONNECTIONS
from lab.harness.account import IdAccount
from lab.harness.figures import Facts
from lab.harness.processes import Lab


def request_emails(lab: Lab, port: int, count: int, while_running: Callable[[], object] = lambda: None) -> Facts:
    """Send requests for `count` emails. Returns the facts of the load, with the ids of the accepted emails."""
    options = ("--port", port, "--connections", CONNECTIONS, "--count", count, "--ids")
    return lab.measure("lab.load.http", *options, while_running=while_running)


def exactly_once(account: IdAccount, *loads: Facts) -> bool:
    """Whether each email arrived exactly once. False also if a connection broke: its answer is not in the account."""
    return not (account.lost or account.duplicated or account.unexpected or broken(loads))


def describe_ids(account: IdAccount, *loads: Facts) -> str:
    words = "of {accepted:,} accepted {lost:,} lost, {duplicated:,} twice; {unexpected:,} sent but not accepted"
    return words.format(**asdict(account)) + f"; {broken(loads):,} connections broke"


def broken(loads: Sequence[Facts]) -> int:
    return sum(facts["broken"] for facts in loads)
