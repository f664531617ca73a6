"""The contract of all six strategies: figures, pages and log."""

import re
import threading

import pytest

from tests.support.programs import Strategy, a_name, ask, wait_until
from tests.support.servers import Inbox


@pytest.fixture
def someone() -> str:
    return f"{a_name()}@example.com"


def test_the_stats_have_every_figure_or_null(strategy: Strategy, inbox: Inbox, someone: str) -> None:
    before = strategy.stats()
    assert before["strategy"] == strategy.name
    assert {"accepted", "sent", "failed", "retried", "waiting", "in_flight", "oldest_wait_seconds"} < set(before)
    strategy.send(someone)
    inbox.wait_for(someone)
    assert strategy.stats()["accepted"] == before["accepted"] + 1


def test_the_oldest_wait_is_the_age_of_the_oldest_email_that_waits_or_is_in_flight(
    strategy: Strategy, inbox: Inbox, someone: str
) -> None:
    inbox.dial(latency_ms=1500)
    caller = threading.Thread(target=strategy.send, args=[someone])  # strategy 1 answers only when the email is sent
    caller.start()
    if strategy.stats()["oldest_wait_seconds"] is None:
        assert strategy.name == "4_remote_messages" or strategy.on_rabbitmq, "only its workers know"
    else:
        wait_until(lambda: strategy.stats()["in_flight"] == 1, "it is in flight")
        wait_until(lambda: 0.2 < strategy.stats()["oldest_wait_seconds"] < 10, "it has waited")
        wait_until(lambda: strategy.stats()["oldest_wait_seconds"] == 0, "nothing waits any more")
    caller.join()
    inbox.wait_for(someone)


def test_figures_that_a_strategy_cannot_know_are_null(strategy: Strategy) -> None:
    unknown = {name for name, figure in strategy.stats().items() if figure is None}
    unknown -= {"next_attempt_seconds", "leader"}  # no email waits for another attempt; no leader just after the start
    elsewhere = {"sent", "failed", "retried", "in_flight", "oldest_wait_seconds"}
    if strategy.name == "4_remote_messages":
        assert unknown == elsewhere | {"waiting"}
    elif strategy.on_jetstream:
        assert unknown == {"retried", "overtaken"}, "JetStream counts neither"
    else:
        assert unknown == (elsewhere if strategy.on_rabbitmq else set())


def test_the_metrics_are_the_stats_for_prometheus(strategy: Strategy) -> None:
    answer = strategy.ask("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    found = dict(re.findall(r'^emails_(\w+)\{strategy="(\w+)"\} \d', answer.text, re.MULTILINE))
    known = {k for k, v in strategy.stats().items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    assert {name.removesuffix("_total") for name in found} == known
    assert set(found.values()) == {strategy.name}


def test_healthy_when_an_email_could_be_accepted(strategy: Strategy) -> None:
    answer = strategy.ask("/health")
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_the_page_names_its_strategy_and_loads_only_its_own_files(strategy: Strategy) -> None:
    answer = strategy.ask("/")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert strategy.name.partition("_")[2].replace("_", " ") in answer.text.lower()
    for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
        assert address.startswith(("/", "#")), f"the page loads {address}"
        assert ask(strategy.url, address).status in (200, 202)  # 202: the example link sends an email
    assert not re.search(r"<script>|<style>|\son\w+=", answer.text)


def test_the_links_of_the_chapter_s_page_work(strategy: Strategy) -> None:
    answer = strategy.ask("/chapter")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert f'<h1 id="{strategy.name[0]}--' in answer.text
    assert '<h2 id="what-it-promises">' in answer.text
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", answer.text)
    links = {address.partition("#")[0] for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text)}
    assert f"/source/{strategy.name}/server.py" in links
    for address in links:
        if address.startswith("https://"):  # another site
            continue
        if not address.startswith("http://127.0.0.1:"):  # an address that a quoted session prints
            assert strategy.ask(address or "/chapter").status == 200, address


@pytest.mark.parametrize(
    "name", [".env", ".data/valkey", ".git/config", ".venv/pyvenv.cfg", "../etc/passwd", "nothing.py"]
)
def test_files_outside_the_repository_are_not_shown(strategy: Strategy, name: str) -> None:
    assert strategy.ask(f"/source/{name}").status == 404
    assert strategy.ask(f"/source/common/%2E%2E/{name}").status == 404


def test_the_log_has_a_line_for_each_sent_email(strategy: Strategy, inbox: Inbox, someone: str) -> None:
    strategy.send(someone)
    inbox.wait_for(someone)
    wait_until(
        lambda: re.search(rf"sent <[^>]+> to {re.escape(someone)} in [\d.]+ ms", strategy.program.output), "a log line"
    )
