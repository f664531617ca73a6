"""The behaviour that all six strategies share: each one is started by `make run-N` and tested over HTTP.

A new strategy is found by itself: it is a folder with a number and a `__main__.py`.
"""

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.programs import LIMIT, Strategy, a_name, email_path, wait_until
from tests.support.servers import Inbox

SENT_OR_ACCEPTED = {True: (200, "sent"), False: (202, "accepted")}


@pytest.fixture
def someone() -> str:
    return f"{a_name()}@example.com"


@pytest.fixture
def nothing_sent(strategy: Strategy) -> Iterator[None]:
    """Check that no email is sent or queued: the strategy's counters do not change."""
    before = wait_until(lambda: stats_at_rest(strategy), "no email of the previous tests is in flight")
    yield
    after = strategy.stats()
    for counter in ("accepted", "sent", "waiting", "in_flight"):
        assert after[counter] == before[counter]


def stats_at_rest(strategy: Strategy) -> dict[str, Any] | None:
    """The stats, or None if an email waits or is in flight as far as the strategy knows."""
    stats = strategy.stats()
    return (
        stats
        if not stats["waiting"] and not stats["in_flight"] and stats["sent"] in (None, stats["accepted"])
        else None
    )


def test_visiting_a_url_sends_an_email(strategy: Strategy, inbox: Inbox, someone: str) -> None:
    answer = strategy.send(someone, "Hello", "How are you?")
    status, word = SENT_OR_ACCEPTED[strategy.name == "1_foreground"]
    assert answer.status == status
    email = {"to": someone, "subject": "Hello", "text": "How are you?"}
    assert answer.json == {"email": email, "id": answer.json["id"], "status": word}
    [message] = inbox.wait_for(someone)
    assert {k: message[k] for k in ("to", "subject", "text")} == email
    assert message["from"] == "workshop@example.com"
    assert message["message_id"] == answer.json["id"]
    assert message["copies"] == 1


def test_the_answer_is_indented_json_and_not_cached(strategy: Strategy, someone: str) -> None:
    answer = strategy.send(someone)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.text.startswith('{\n  "email": {\n    "to": ')


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Grüße aus Köln", "Æ \U0001f600 漢字"),
        ("a/b?c#d&e=f", "100% of 1+1"),
        ("=?UTF-8?Q?=0A?=Bcc: evil@x", "=?UTF-8?Q?Hello?="),
        ("<img src=x onerror=alert(1)>", "<script>alert(1)</script>"),
        ("'; DROP TABLE emails; --", "{{7*7}} ${7*7}"),
        ("x" * 200, "x" * 3000),
        (" spaces around ", " and "),
    ],
)
def test_subject_and_text_arrive_unchanged(
    strategy: Strategy, inbox: Inbox, someone: str, subject: str, text: str
) -> None:
    assert strategy.send(someone, subject, text).json["email"] == {"to": someone, "subject": subject, "text": text}
    [message] = inbox.wait_for(someone)
    assert (message["subject"], message["text"]) == (subject, text)


def test_a_lone_dot_arrives_as_text(strategy: Strategy, inbox: Inbox, someone: str) -> None:
    """Sent directly to the server, because a browser would take `/.` for the same folder."""
    assert strategy.ask(f"/{someone}/x/%2E").status < 300
    assert inbox.wait_for(someone)[0]["text"] == "."


def test_two_equal_requests_are_two_emails(strategy: Strategy, inbox: Inbox, someone: str) -> None:
    ids = {strategy.send(someone).json["id"] for _ in range(2)}
    assert {message["message_id"] for message in inbox.wait_for(someone, 2)} == ids
    assert len(ids) == 2


def test_addresses_in_other_scripts_are_accepted(strategy: Strategy, inbox: Inbox) -> None:
    name = a_name()
    assert strategy.send(f"{name}@bücher.example").json["email"]["to"] == f"{name}@bücher.example"
    inbox.wait_for(f"{name}@xn--bcher-kva.example")
    assert strategy.send(f"jörg-{name}@example.com").status < 300
    inbox.wait_for(f"jörg-{name}@example.com")


BAD_PATHS = [
    ("/bob@example.com/Hello/x%0D%0ABcc:%20x", "text"),
    ("/bob@example.com/Hello%0D%0ABcc:%20evil@x.com/x", "subject"),
    ("/bob@example.com/Hello%0A/x", "subject"),
    ("/bob@example.com%0A/Hello/x", "to"),
    ("/bob@example.com/Hello/x%00", "text"),
    ("/bob@example.com/Hello%C2%85/x", "subject"),
    ("/bob@example.com/Hello/%E2%80%A8", "text"),
    ("/bob@example.com/Hello/%ED%A0%80", "text"),
    ("/bob@example.com/Hello/%FF", "text"),
    ("/bob@example.com/%FFHello/x", "subject"),
    ("/%FFbob@example.com/Hello/x", "to"),
    ("/a@b.com,%20evil@x.com/Hello/x", "to"),
    ("/g:%20a@b.com,%20c@d.com;/Hello/x", "to"),
    ("/a@b.com;%20c@d.com/Hello/x", "to"),
    ("/%22evil@x.com%22%20%3Ca@b.com%3E/Hello/x", "to"),
    ("/@relay.com:bob@example.com/Hello/x", "to"),
    ("/bob@example.com(hi)/Hello/x", "to"),
    ("/nobody/Hello/x", "to"),
    (f"/{'a' * 65}@example.com/Hello/x", "to"),
    (f"/bob@{'.'.join(['b' * 60] * 5)}.com/Hello/x", "to"),
    (f"/bob@example.com/{'x' * 201}/x", "subject"),
    ("/bob@example.com//x", "subject"),
    ("/bob@example.com/Hello/", "text"),
    (f"/bob@example.com/Hello/{'x' * 9000}", "url"),
]


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize(("path", "field"), BAD_PATHS, ids=[path[:60] for path, _ in BAD_PATHS])
def test_bad_input_is_answered_with_400_and_the_name_of_the_field(strategy: Strategy, path: str, field: str) -> None:
    answer = strategy.ask(path)
    assert answer.status == 400
    assert answer.json["error"]["field"] == field
    assert answer.json["error"]["reason"]
    assert set(answer.json) == {"error"}


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize(
    "path", ["/favicon.ico", "/robots.txt", "/bob@example.com", "/bob@example.com/Hello", "/a@b.com/s/t/more", "//"]
)
def test_any_other_path_is_answered_with_404_as_json(strategy: Strategy, path: str) -> None:
    answer = strategy.ask(path)
    assert answer.status == 404 if path != "//" else answer.status in (400, 404)
    assert answer.json["error"]["reason"]


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_send_nothing(strategy: Strategy, method: str) -> None:
    answer = strategy.ask(email_path("bob@example.com", "Hello", "x"), method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET"


FOREIGN = {
    "DNS rebinding": {"Host": "evil.test"},
    "a name that only begins like ours": {"Host": "localhost.evil.test"},
    "a user part": {"Host": "127.0.0.1@evil.test"},
    "no host": {"Host": ""},
    "a foreign origin": {"Origin": "http://evil.test"},
    "a broken origin": {"Origin": "http://["},
    "an opaque origin": {"Origin": "null"},
    "another port's origin": {"Origin": "http://127.0.0.1:1"},
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another port": {"Sec-Fetch-Site": "same-site"},
    "a prefetch": {"Sec-Purpose": "prefetch"},
    "a prerender": {"Sec-Purpose": "prefetch;prerender"},
}


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN.keys())
def test_requests_from_a_page_of_another_site_are_forbidden(strategy: Strategy, headers: dict[str, str]) -> None:
    for path in (email_path("bob@example.com", "Hello", "x"), "/", "/stats"):
        answer = strategy.ask(path, headers=headers)
        assert answer.status == 403
        assert answer.json["error"]["reason"]


def test_a_link_from_another_port_opens_a_page_but_sends_no_email(strategy: Strategy) -> None:
    """The inbox links back to the strategy; a link to an email's path would send it."""
    headers = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert strategy.ask("/", headers=headers).status == 200
    assert strategy.ask(email_path("bob@example.com", "Hello", "x"), headers=headers).status == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST", "workshop.localhost"])
def test_every_loopback_name_is_accepted_as_host(strategy: Strategy, host: str) -> None:
    netloc = f"{host}:{urlsplit(strategy.url).port}"
    headers = {"Host": netloc, "Origin": f"http://{netloc}", "Sec-Fetch-Site": "same-origin"}
    assert strategy.ask("/", headers=headers).status == 200


@pytest.mark.parametrize("target", ["http://127.0.0.1/{to}/Hello/x", "/{to}/Hello/x#frag/ment", "/{to}/Hello/x?y=/z"])
def test_other_forms_of_the_request_send_the_email(strategy: Strategy, inbox: Inbox, someone: str, target: str) -> None:
    answer = strategy.ask(target.format(to=someone))
    assert answer.json["email"] == {"to": someone, "subject": "Hello", "text": "x"}
    inbox.wait_for(someone)


def test_invalid_http_is_answered_with_400_as_json(strategy: Strategy) -> None:
    address = urlsplit(strategy.url)
    with socket.create_connection((address.hostname, address.port), timeout=LIMIT) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert b'"error": {' in answer
