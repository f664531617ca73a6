"""The page at /log and its POST requests."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.node_peer import NODE
from tests.support.programs import LIMIT, ROOT, Answer, Strategy, running_strategy, someone, wait_until
from tests.support.servers import Inbox, Valkey, valkey_of

SCRIPT = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def running(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Strategy, Valkey]]:
    data_dir = tmp_path_factory.mktemp("page")
    settings = {"SMTP_URL": inbox.smtp_url, "PARTITION_SECONDS": "0.2"}
    with running_strategy("6_event_bus", data_dir, **settings) as strategy:
        for name in ("email", "audit"):
            wait_until(lambda name=name: consumer(strategy, name), f"the consumer {name} is registered")  # type: ignore[misc]
        yield strategy, valkey_of(data_dir)
    assert "Traceback" not in strategy.program.output, "bad data causes no traceback"


@pytest.fixture
def strategy(running: tuple[Strategy, Valkey]) -> Strategy:
    return running[0]


@pytest.fixture
def redis(running: tuple[Strategy, Valkey]) -> Any:
    return running[1].client


def state(strategy: Strategy) -> Any:
    return strategy.ask("/log/state").json


def consumer(strategy: Strategy, name: str) -> Any:
    return next((one for one in state(strategy)["consumers"] if one["name"] == name), None)


def token_of(strategy: Strategy) -> str:
    text = strategy.ask("/log").text
    return text.partition('data-token="')[2].partition('"')[0]


def post(strategy: Strategy, what: str, token: str | None = None, **fields: str) -> Answer:
    connection = HTTPConnection(urlsplit(strategy.url).netloc, timeout=LIMIT)
    headers = {"Content-Type": "application/x-www-form-urlencoded"} | ({"X-Token": token} if token else {})
    connection.request("POST", f"/log/{what}", body=urlencode(fields), headers=headers)
    response = connection.getresponse()
    answer = Answer(response.status, response.headers, response.read().decode())
    connection.close()
    return answer


def test_the_page_loads_only_its_own_files(strategy: Strategy) -> None:
    answer = strategy.ask("/log")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
    for asset in ("log.js", "log.css"):
        assert f'"/log/assets/{asset}"' in answer.text
        assert strategy.ask(f"/log/assets/{asset}").status == 200
    assert "innerHTML" not in strategy.ask("/log/assets/log.js").text
    assert 'href="/log"' in strategy.ask("/").text


def test_the_state_has_partitions_and_consumers(strategy: Strategy, inbox: Inbox) -> None:
    to = someone()
    before = state(strategy)["events"]
    for _ in range(3):
        assert strategy.send(to).status == 202
    inbox.wait_for(to, 3)
    wait_until(lambda: consumer(strategy, "email")["pending"] == 0, "every event is handled")
    found = state(strategy)
    assert found["events"] == before + 3
    newest = found["partitions"][-1]
    assert (newest["length"] > 0, newest["bytes"] > 0, newest["sealed"]) == (True, True, False)
    assert abs(newest["opened"] - time.time()) < 60
    wait_until(lambda: consumer(strategy, "audit")["waiting"] == 0, "the audit has handled every event")
    assert {"email", "audit"} <= {one["name"] for one in state(strategy)["consumers"]}


def test_the_state_is_sent_after_each_change(strategy: Strategy) -> None:
    connection = HTTPConnection(urlsplit(strategy.url).netloc, timeout=LIMIT)
    connection.request("GET", "/log/events")
    response = connection.getresponse()

    def next_state() -> Any:
        while not (line := response.readline()).startswith(b"data: "):
            assert line, "the stream has ended"
        return json.loads(line[6:])

    before = next_state()["events"]
    strategy.send(someone())
    while next_state()["events"] != before + 1:
        pass
    connection.close()


@pytest.mark.parametrize("what", ["replay", "retry", "discard", "trim"])
def test_a_change_needs_a_post_with_the_token_of_the_page(strategy: Strategy, what: str) -> None:
    fields = {"consumer": "email", "from": "end", "older_than": "99999"}
    assert strategy.ask(f"/log/{what}").status == 405
    assert post(strategy, what, **fields).status == 403
    assert post(strategy, what, token="0" * 64, **fields).status == 403
    assert post(strategy, what, token=token_of(strategy), **fields).status == 200


@pytest.mark.parametrize(
    ("what", "fields", "field"),
    [
        ("replay", {"consumer": "nobody", "from": "beginning"}, "consumer"),
        ("replay", {"consumer": "audit", "from": SCRIPT}, "from"),
        ("replay", {"consumer": "audit", "from": "nan"}, "from"),
        ("replay", {"consumer": "audit", "from": "-1"}, "from"),
        ("replay", {"consumer": "audit", "from": "1-1"}, "from"),
        ("replay", {"consumer": "audit"}, "from"),
        ("retry", {"consumer": SCRIPT}, "consumer"),
        ("discard", {"consumer": SCRIPT}, "consumer"),
        ("trim", {"older_than": "soon"}, "older_than"),
        ("trim", {"older_than": "-1"}, "older_than"),
        ("trim", {"older_than": "nan"}, "older_than"),
    ],
)
def test_an_invalid_value_is_a_400(strategy: Strategy, what: str, fields: dict[str, str], field: str) -> None:
    answer = post(strategy, what, token=token_of(strategy), **fields)
    assert (answer.status, answer.json["error"]["field"]) == (400, field)


def test_the_page_shows_when_the_next_attempt_is_due(strategy: Strategy, inbox: Inbox) -> None:
    inbox.dial(refuse_rate=1.0, refuse_code=451)
    strategy.send(someone())
    wait_until(lambda: consumer(strategy, "email")["next_attempt_seconds"] is not None, "an attempt has failed")
    inbox.dial(refuse_rate=0.0)
    wait_until(lambda: consumer(strategy, "email")["next_attempt_seconds"] is None, "no event is delayed")


def test_a_parked_event_can_be_retried_and_a_replay_sends_its_email_again(strategy: Strategy, inbox: Inbox) -> None:
    to, before = someone(), consumer(strategy, "email")["parked"]
    inbox.dial(refuse_rate=1, refuse_code=550)
    answer = strategy.send(to, SCRIPT, SCRIPT)
    wait_until(lambda: consumer(strategy, "email")["parked"] == before + 1, "it is parked")
    inbox.dial(refuse_rate=0)
    [parked] = [one for one in consumer(strategy, "email")["parked_events"] if to in one["element"]]
    assert parked["reason"].startswith("Refused: 550")
    assert SCRIPT in parked["element"]
    token = token_of(strategy)
    assert post(strategy, "retry", token=token, consumer="email", position=parked["position"]).status == 200
    [message] = inbox.wait_for(to)
    assert message["message_id"] == answer.json["id"]
    wait_until(lambda: consumer(strategy, "email")["parked"] == before, "it is no longer parked")
    assert post(strategy, "replay", token=token, **{"consumer": "email", "from": parked["position"]}).status == 200
    wait_until(lambda: inbox.messages(to)[0]["copies"] == 2, "the replay has sent the email again")


def test_a_parked_event_can_be_discarded(strategy: Strategy, inbox: Inbox) -> None:
    to = someone()
    inbox.dial(refuse_rate=1, refuse_code=550)
    strategy.send(to)
    wait_until(lambda: consumer(strategy, "email")["parked"] == 1, "it is parked")
    [parked] = consumer(strategy, "email")["parked_events"]
    token = token_of(strategy)
    answer = post(strategy, "discard", token=token, consumer="email", position=parked["position"])
    assert answer.json["done"] == "1 parked events of email are discarded"
    assert (consumer(strategy, "email")["parked"], consumer(strategy, "email")["parked_events"]) == (0, [])


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_an_invalid_time_is_shown_as_a_dash() -> None:
    script = (ROOT / "eventlog/dashboard/assets/log.js").read_text()
    clock = re.search(r"^const clock = .*$", script, re.MULTILINE)
    time = re.search(r"^function time\(.*?^}$", script, re.MULTILINE | re.DOTALL)
    assert clock
    assert time
    ask = "console.log(JSON.stringify([null, 1e300, 1e17, NaN, 0].map(time)))"
    printed = subprocess.run(
        [str(NODE), "-e", f"{clock[0]}\n{time[0]}\n{ask}"], capture_output=True, text=True, check=True
    )
    *none, midnight = json.loads(printed.stdout)
    assert none == ["\N{EN DASH}"] * 4
    assert re.fullmatch(r"\d\d:\d\d:\d\d", midnight)


def test_a_trim_deletes_events_that_every_consumer_has_handled(strategy: Strategy, inbox: Inbox) -> None:
    for _ in range(3):
        to = someone()
        assert strategy.send(to).status == 202
        inbox.wait_for(to)
        before = state(strategy)["now"]
        wait_until(lambda before=before: state(strategy)["now"] > before, "a second has passed")  # type: ignore[misc]
    wait_until(lambda: consumer(strategy, "audit")["waiting"] == 0, "every event is handled")
    length = sum(partition["length"] for partition in state(strategy)["partitions"])

    def trimmed() -> bool:
        done: str = post(strategy, "trim", token=token_of(strategy), older_than="0").json["done"]
        return not done.startswith("0 events")

    wait_until(trimmed, "events are trimmed")
    assert sum(partition["length"] for partition in state(strategy)["partitions"]) < length


def test_bad_data_in_any_key_is_shown_as_text_and_breaks_nothing_else(
    strategy: Strategy, redis: Any, inbox: Inbox
) -> None:
    with ExitStack() as stack:
        redis.sadd("eventlog:consumers", SCRIPT, "broken")
        stack.callback(redis.srem, "eventlog:consumers", SCRIPT, "broken")
        redis.set("eventlog:cursor:{broken}", SCRIPT)
        redis.set("eventlog:counts:{broken}", SCRIPT)
        about = '{"reason": "x", "attempts": 1e300, "at": 1e300}'
        redis.hset("eventlog:parked:{audit}", mapping={SCRIPT: SCRIPT, "large": f"{about}\nx"})
        redis.zadd("eventlog:parked_order:{audit}", {SCRIPT: 2, "large": 1, "gone": 0})
        stack.callback(redis.delete, "eventlog:parked:{audit}", "eventlog:parked_order:{audit}")
        redis.hset("eventlog:counts:{audit}", mapping={"handled": SCRIPT, "overtaken": "9" * 30})
        for key in redis.keys("eventlog:audit:{*"):
            redis.hset(key, SCRIPT, 7)
            redis.hset(key, mapping={"x": SCRIPT, "y": "9" * 5000})
        redis.zadd("eventlog:partitions", {SCRIPT: 0.5, "9" * 20: 0.6})
        stack.callback(redis.zrem, "eventlog:partitions", SCRIPT, "9" * 20)
        assert SCRIPT not in strategy.ask("/log").text, "the page has it as escaped data only"
        answer = strategy.ask("/log/state")
        assert answer.status == 200
        consumers = {one["name"]: one for one in answer.json["consumers"]}
        assert "error" in consumers[SCRIPT]
        assert "error" in consumers["broken"]
        parked, large = consumers["audit"]["parked_events"]
        assert parked["position"] == SCRIPT
        assert (large["attempts"], large["at"]) == (None, None)
        assert (consumers["audit"]["handled"], consumers["audit"]["overtaken"]) == (0, None)
        to = someone()
        assert strategy.send(to).status == 202
        inbox.wait_for(to)
