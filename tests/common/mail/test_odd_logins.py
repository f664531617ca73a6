"""Mail servers that refuse the login: each strategy reports the reason, and none tries many logins."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.mail.logins import PAUSES_SECONDS
from tests.support.odd_servers import OddServer, odd_server
from tests.support.programs import Strategy, running_strategy, someone, wait_until

EMAILS = 10
LOCKED_AFTER = 5  # failed logins: then such a server refuses the right password too
REFUSED, TOO_MANY, DEMANDED = "login refused and closed", "too many logins", "login demanded"
REASONS = {
    REFUSED: "535 5.7.8 bad credentials",
    TOO_MANY: "454 4.7.0 too many login attempts",
    DEMANDED: "530 5.7.0 authentication required",
}


@contextmanager
def facing(odd: str, name: str, tmp_path: Path, **more: str) -> Iterator[tuple[Strategy, OddServer]]:
    with odd_server(odd) as server:
        with running_strategy(name, tmp_path, SMTP_URL=server.url, DRAIN_SECONDS="0.1", **more) as strategy:
            yield strategy, server
        assert "Traceback" not in strategy.program.output
        assert "secret" not in strategy.program.output


def assert_few_logins(server: OddServer) -> None:
    """A server counts failed logins and may lock the account."""
    assert server.peer.commands.count("AUTH") < LOCKED_AFTER


def wait_for_a_login(strategy: Strategy, server: OddServer) -> None:
    """Repair the login, and wait until an email is sent and the reason is no longer shown."""
    server.repair_login()
    wait_until(lambda: strategy.send(someone()).status < 300 and server.peer.messages, "an email is sent")
    wait_until(lambda: strategy.stats()["login_failed"] is False, "the reason is gone")


@pytest.mark.parametrize("odd", REASONS)
def test_strategy_1_reports_the_reason_to_the_caller_and_in_the_stats(odd: str, tmp_path: Path) -> None:
    with facing(odd, "1_foreground", tmp_path) as (strategy, server):
        assert strategy.stats()["login_failed"] is False
        for _ in range(EMAILS):
            answer = strategy.send(someone())
            assert (answer.status, answer.json["error"]["kind"]) == (502, "LoginFailed")
            assert REASONS[odd] in answer.json["error"]["reason"]
        assert REASONS[odd] in strategy.stats()["login_failed"]
        assert REASONS[odd] in strategy.ask("/health").json["reason"]
        assert_few_logins(server)
        if odd != TOO_MANY:  # after a 454 the next try comes a minute later
            wait_for_a_login(strategy, server)


@pytest.mark.parametrize("odd", REASONS)
def test_strategy_2_logs_the_reason_for_each_email_and_shows_it_in_the_stats(odd: str, tmp_path: Path) -> None:
    with facing(odd, "2_parallel", tmp_path) as (strategy, server):
        assert strategy.stats()["login_failed"] is False
        ids = [strategy.send(someone()).json["id"] for _ in range(EMAILS)]
        wait_until(lambda: strategy.stats()["failed"] == EMAILS, "all have failed")
        for email_id in ids:
            strategy.program.wait_for_line(f"not sent {re.escape(email_id)} .*LoginFailed: .*{re.escape(REASONS[odd])}")
        assert REASONS[odd] in strategy.stats()["login_failed"]
        assert_few_logins(server)
        if odd != TOO_MANY:
            wait_for_a_login(strategy, server)


@pytest.mark.parametrize("name", ["3_local_messages", "5_remote_queue"])
@pytest.mark.parametrize("odds", [(REFUSED, TOO_MANY), (DEMANDED,)], ids=["login offered", DEMANDED])
def test_strategies_that_keep_emails_pause_and_use_up_no_attempt(
    odds: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    with facing(odds[0], name, tmp_path) as (strategy, server):
        for number, odd in enumerate(odds):
            if number:
                server.become(odd)
            ids = [strategy.send(someone()).json["id"] for _ in range(EMAILS)]
            check_pause(strategy, server, odd)
            if odd != TOO_MANY:
                server.repair_login()
                wait_until(lambda: strategy.held() == 0, "all are sent")
                assert {server.copies(email_id) for email_id in ids} == {1}
            stats = strategy.stats()
            assert (stats["failed"], stats["retried"]) == (0, 0)


def check_pause(strategy: Strategy, server: OddServer, odd: str) -> None:
    """The strategy holds all emails, says why, and still accepts new ones."""
    wait_until(lambda: REASONS[odd] in (strategy.stats()["paused"] or ""), "sending is paused")
    assert strategy.stats()["paused"].startswith("LoginFailed: ")
    assert strategy.healthy()
    assert strategy.held() == EMAILS
    assert_few_logins(server)


def test_several_workers_together_do_not_lock_the_account(tmp_path: Path) -> None:
    with facing(REFUSED, "4_remote_messages", tmp_path, WORKERS="3") as (strategy, server):
        logins = server.peer.commands
        wait_until(lambda: strategy.send(someone()).status == 202 and logins.count("AUTH") >= 3, "each has tried")
        refused = time.monotonic()
        wait_until(lambda: time.monotonic() - refused > 2 * PAUSES_SECONDS[0], "the first pause is over")
        assert_few_logins(server)
        assert strategy.ask("/health").status == 200
