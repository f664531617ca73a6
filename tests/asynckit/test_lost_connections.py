"""A proxy in front of Redis repeatedly drops all connections; each strategy that uses Redis continues."""

from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.programs import running_strategy, someone, wait_until
from tests.support.proxy import dropping_proxy
from tests.support.servers import Inbox, Valkey

DROPS = 100


@pytest.mark.parametrize(
    ("name", "log"),
    [("4_remote_messages", ""), ("5_remote_queue", ""), ("6_event_bus", "lua"), ("6_event_bus", "streams")],
)
def test_a_strategy_survives_lost_connections_without_500_or_traceback(
    name: str, log: str, inbox: Inbox, valkey: Valkey, tmp_path: Path
) -> None:
    to = someone()
    with dropping_proxy(valkey.port, 0.03) as proxy:
        environment = {"SMTP_URL": inbox.smtp_url, "REDIS_URL": proxy.url, "LOG": log, "DRAIN_SECONDS": "2"}
        with running_strategy(name, tmp_path, **environment) as strategy:
            before = proxy.times
            with Load(strategy, to, clients=10) as load:
                wait_until(lambda: proxy.times >= before + DROPS, "many dropped connections")
            assert set(load.statuses) <= {202, 503, 504}, load.statuses
            assert load.statuses[202] > 0
            to = someone()
            wait_until(lambda: strategy.send(to).status == 202, "an email is accepted")
            wait_until(lambda: inbox.messages(to), "it is sent")
        for sign in ("Traceback", "RuntimeError", "background task"):
            assert sign not in strategy.program.output
