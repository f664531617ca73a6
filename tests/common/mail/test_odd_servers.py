"""Mail servers with unusual limits and answers, and the emails that strategies 1, 2, 3 and 5 send to them.

Each strategy is started by `make run-N` once, and meets the servers of tests/support/odd_servers.py in turn.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.odd_servers import SLOW_SECONDS, OddServer, odd_server
from tests.support.programs import Answer, Strategy, running_strategy, someone, wait_until

FOREGROUND, PARALLEL, LOCAL, QUEUE = "1_foreground", "2_parallel", "3_local_messages", "5_remote_queue"
KEEPING = (LOCAL, QUEUE)
SETTINGS = {
    "SMTP_CONNECT_SECONDS": "1",
    "SMTP_SEND_SECONDS": str(2.5 * SLOW_SECONDS),
    "LEASE_SECONDS": str(SLOW_SECONDS / 2),
    "RETRY_PAUSES_SECONDS": "0.5",
    "DRAIN_SECONDS": "0.5",
}


class Facing:
    """A strategy and the odd server that it sends to."""

    def __init__(self, strategy: Strategy, server: OddServer) -> None:
        self.name = strategy.name
        self.strategy = strategy
        self.server = server
        self._before: dict[str, Any] = {}

    def become(self, odd: str) -> None:
        self.server.become(odd)
        self._before = self.strategy.stats()

    def send_at_once(self, count: int) -> list[Answer]:
        with ThreadPoolExecutor(10) as pool:
            return list(pool.map(lambda _: self.strategy.send(someone()), range(count)))

    def figure(self, name: str) -> int:
        """How much this figure has grown since the last call of become()."""
        return int(self.strategy.stats()[name] - self._before[name])

    def each_arrives_once(self, answers: list[Answer]) -> None:
        """Each email has arrived once, and the figures show no failed attempt."""
        wait_until(lambda: self.figure("sent") == len(answers), "all are sent")
        assert {self.server.copies(answer.json["id"]) for answer in answers} == {1}
        assert len(self.server.peer.messages) == len(answers)
        assert (self.figure("failed"), self.figure("retried")) == (0, 0)
        assert not self.strategy.stats().get("paused")


@pytest.fixture(scope="module", params=[FOREGROUND, PARALLEL, LOCAL, QUEUE])
def facing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facing]:
    with odd_server("greylisting") as server:
        data_dir = tmp_path_factory.mktemp(request.param)
        with running_strategy(request.param, data_dir, SMTP_URL=server.url, **SETTINGS) as strategy:
            yield Facing(strategy, server)
        assert "Traceback" not in strategy.program.output


def statuses(answers: list[Answer]) -> set[int]:
    return {answer.status for answer in answers}


@pytest.mark.parametrize(
    "odd",
    [
        "slow greeting",
        "messages per session, at DATA",
        "messages per session, at MAIL",
        "messages per session, at BDAT",
        "chunking that fails",
        "pipelining that drops commands",
        "pipelining that closes",
        "pipelining that refuses",
    ],
)
def test_no_caller_sees_what_waiting_or_another_session_solves(facing: Facing, odd: str) -> None:
    """Not in strategy 1 either. SMTP_CONNECT_SECONDS does not limit the greeting."""
    facing.become(odd)
    answers = facing.send_at_once(40)
    assert statuses(answers) == {200 if facing.name == FOREGROUND else 202}
    facing.each_arrives_once(answers)


def test_a_greylisted_email_arrives_once_where_the_strategy_keeps_it(facing: Facing) -> None:
    facing.become("greylisting")
    strategy, to = facing.strategy, someone()
    answer = strategy.send(to)
    if facing.name == FOREGROUND:
        assert answer.status == 503
        assert answer.json["error"] == {"reason": "450 4.7.1 greylisted, try again later", "kind": "Unavailable"}
    else:
        assert answer.status == 202
    if facing.name in KEEPING:
        assert wait_until(lambda: strategy.stats()["next_attempt_seconds"], "the next attempt has a time") < 20
        wait_until(lambda: facing.figure("sent") == 1, "it is sent")
        assert facing.server.copies(answer.json["id"]) == 1
        assert facing.figure("retried") >= 1
        assert (facing.figure("failed"), strategy.held(), strategy.stats()["paused"]) == (0, 0, False)
    else:
        wait_until(lambda: facing.figure("failed") == 1, "the refusal is counted")
        strategy.program.wait_for_line(rf"not sent {re.escape(answer.json['id'])} .*Unavailable: 450 4\.7\.1")
        wait_until(lambda: strategy.send(to).status < 300 and facing.server.peer.messages, "a repetition arrives")
        wait_until(lambda: strategy.stats()["in_flight"] == 0, "all repetitions have ended")


@pytest.mark.parametrize("odd", ["slow 250", "slow 250 to BDAT"])
def test_a_slow_250_is_in_doubt_in_strategy_1_and_makes_no_copy_in_the_others(facing: Facing, odd: str) -> None:
    """Slower than SMTP_SEND_SECONDS in strategy 1, and than a lease in strategy 5."""
    facing.become(odd)
    if facing.name == FOREGROUND:
        facing.server.peer.pause = 3 * SLOW_SECONDS
    answers = facing.send_at_once(10)
    if facing.name == FOREGROUND:
        assert statuses(answers) == {504}
        assert {answer.json["error"]["kind"] for answer in answers} == {"InDoubt"}
        assert facing.figure("failed") == len(answers)
        wait_until(lambda: len(facing.server.peer.messages) == len(answers), "they arrive all the same")
        assert {facing.server.copies(answer.json["id"]) for answer in answers} == {1}
    else:
        assert statuses(answers) == {202}
        facing.each_arrives_once(answers)


def test_all_lines_of_a_refusal_are_reported(facing: Facing) -> None:
    reason = "550 5.1.1 The account does not exist. Check the address. https://s.example/x"
    facing.become("multi-line refusal")
    answer = facing.strategy.send(someone())
    wait_until(lambda: facing.figure("failed") == 1, "it is given up")
    assert facing.figure("retried") == 0
    if facing.name == FOREGROUND:
        assert answer.status == 502
        assert answer.json["error"] == {"reason": reason, "kind": "Refused"}
    else:
        assert answer.status == 202
        facing.strategy.program.wait_for_line(rf"{re.escape(answer.json['id'])} .*{re.escape(reason)}$")
    if facing.name == QUEUE:
        assert reason in facing.strategy.ask("/resque/failed").text


def test_the_pool_learns_a_limit_of_connections_and_no_caller_sees_it(facing: Facing) -> None:
    """This is the last test, because the pool stays small for a while."""
    facing.become("three connections")
    answers = facing.send_at_once(40)
    assert statuses(answers) == {200 if facing.name == FOREGROUND else 202}
    facing.each_arrives_once(answers)
    assert 3 < facing.server.peer.connections <= 20, "SMTP_SESSIONS: the server refused each at most once"
