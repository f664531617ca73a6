"""The answer to a caller if Redis did not accept an email, or did not answer: the same in strategies 4, 5 and 6.

Strategy 3 hands emails over to its master: see test_3_local_messages.py.
"""

import asyncio
from pathlib import Path

import pytest

from lab.harness.proxy import a_proxy
from tests.support.programs import Answer, a_name, closed_port, running_strategy, someone, wait_until
from tests.support.servers import Inbox, Valkey

in_each = pytest.mark.parametrize(
    ("name", "log"),
    [("4_remote_messages", ""), ("5_remote_queue", ""), ("6_event_bus", "lua"), ("6_event_bus", "streams")],
)


def certainly_not_handed_over(answer: Answer, email: dict[str, str]) -> None:
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert set(answer.json) == {"email", "error"}
    assert answer.json["email"] == email
    assert set(answer.json["error"]) == {"reason"}


def perhaps_handed_over(answer: Answer, email: dict[str, str]) -> None:
    assert answer.status == 504
    assert "Retry-After" not in answer.headers, "a repetition may send it twice"
    assert set(answer.json) == {"email", "id", "error"}
    assert answer.json["email"] == email
    assert set(answer.json["error"]) == {"reason", "kind"}
    assert answer.json["error"]["kind"] == "NoAnswer"
    assert answer.json["error"]["reason"].endswith(": the email may still be sent")


def an_email() -> dict[str, str]:
    return {"to": someone(), "subject": a_name(), "text": "How are you?"}


@in_each
def test_a_refused_connection_is_answered_with_503(name: str, log: str, inbox: Inbox, tmp_path: Path) -> None:
    with closed_port() as port:
        environment = {"REDIS_URL": f"redis://127.0.0.1:{port}/0", "SMTP_URL": inbox.smtp_url, "LOG": log}
        with running_strategy(name, tmp_path, ROLE="server", **environment) as strategy:
            email = an_email()
            certainly_not_handed_over(strategy.send(**email), email)


@in_each
async def test_a_connection_cut_before_the_answer_means_504_and_redis_has_the_email(
    name: str, log: str, inbox: Inbox, valkey: Valkey, tmp_path: Path
) -> None:
    """Strategies 5 and 6 repeat the command, which is safe because Redis knows the ids. Both answers are cut."""
    valkey.client.flushall()
    email, cuts = an_email(), 1 if name == "4_remote_messages" else 2
    async with a_proxy(valkey.port) as proxy:
        environment = {"REDIS_URL": proxy.url, "SMTP_URL": inbox.smtp_url, "LOG": log, "DRAIN_SECONDS": "2"}
        role = "" if name == "4_remote_messages" else "server"

        def send() -> tuple[Answer, int]:
            with running_strategy(name, tmp_path, ROLE=role, **environment) as strategy:
                wait_until(strategy.healthy, "an email could be accepted")
                assert strategy.send(**an_email()).status == 202  # so that Redis knows the script
                proxy.at(email["subject"], cuts)
                answer = strategy.send(**email)
                if not role:
                    [message] = inbox.wait_for(email["to"])
                    assert message["message_id"] == answer.json["id"]
                return answer, strategy.held()

        answer, held = await asyncio.to_thread(send)
    assert proxy.times == cuts
    perhaps_handed_over(answer, email)
    assert held == (2 if role else 0), "Redis has it once, in addition to the first email"
