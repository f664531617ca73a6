"""The batcher: how much faster a group commit is than one command per call, with a Valkey that syncs every write."""

from collections.abc import Iterator

from lab.harness.figures import Facts, Row, in_turns
from lab.harness.processes import Lab
from lab.harness.valkey import valkey
from lab.load.redis import KINDS

CALLERS = 50
SECONDS = 0.7  # of each round, on either side


def batcher(lab: Lab) -> Iterator[Row]:
    with valkey(lab) as url:
        for command, what in KINDS.items():
            rounds = in_turns(
                lab.say,
                lambda command=command: call(lab, url, command, "--batched"),  # type: ignore[misc]
                lambda command=command: call(lab, url, command),  # type: ignore[misc]
            )
            yield Row(
                name=f"batcher, {command.upper()}",
                unit="calls/s",
                rounds=rounds,
                against="a command each",
                target="ratio > 1",
                met=rounds.ratio.median > 1,
                notes=(f"{CALLERS} callers, {what}; {rounds.times()}",),
            )


def call(lab: Lab, url: str, command: str, *options: str) -> Facts:
    return lab.measure("lab.load.redis", command, "--callers", CALLERS, "--seconds", SECONDS, *options, REDIS_URL=url)
