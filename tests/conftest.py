"""Fixtures: the embedded inbox and Valkey, and strategies started by the command that a reader types."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings as hypothesis_settings

from lab.harness.processes import Lab
from tests.support.programs import ROOT, Strategy, ask, running_strategy
from tests.support.rabbitmq import INSTALLED, REASON
from tests.support.servers import Inbox, Valkey, running_inbox, running_valkey

# No deadline for an example: CI machines can be slow, and `make bench` measures speed.
hypothesis_settings.register_profile("six-ways", deadline=None)
hypothesis_settings.load_profile("six-ways")

STRATEGIES = sorted(path.parent.name for path in ROOT.glob("[1-9]_*/__main__.py"))
ON_RABBITMQ = pytest.param("5_remote_queue on rabbitmq", marks=pytest.mark.skipif(not INSTALLED, reason=REASON))
SETTING_OF = {"rabbitmq": "QUEUE", "jetstream": "LOG"}
ON_JETSTREAM = "6_event_bus on jetstream"


@pytest.fixture(scope="session")
def only_inbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inbox]:
    with running_inbox(tmp_path_factory.mktemp("inbox")) as inbox:
        yield inbox


@pytest.fixture(scope="module")
def inbox(only_inbox: Inbox) -> Inbox:
    """An inbox without messages. A test that kills it needs one of its own."""
    assert ask(only_inbox.url, "/api/messages", "DELETE").status < 300
    return only_inbox


@pytest.fixture(scope="session")
def only_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey


@pytest.fixture(scope="module")
def valkey(only_valkey: Valkey) -> Iterator[Valkey]:
    """A Valkey without data and scripts, and with its first configuration. A test that kills it needs its own."""
    client = only_valkey.client
    client.flushall()
    client.script_flush()
    before = client.config_get("*")
    yield only_valkey
    for name, value in client.config_get("*").items():
        if value != before[name]:
            client.execute_command("CONFIG", "SET", name, before[name])  # type: ignore[no-untyped-call]


@pytest.fixture(autouse=True)
def reset_dial(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test with an inbox, set all faults of its dial to 0."""
    yield
    if "inbox" in request.fixturenames:
        request.getfixturevalue("inbox").dial(latency_ms=0, refuse_rate=0, hang_rate=0, lose_reply_rate=0)


@pytest.fixture(scope="module", params=[*STRATEGIES, ON_RABBITMQ, ON_JETSTREAM])
def strategy(
    request: pytest.FixtureRequest, inbox: Inbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Strategy]:
    """Each strategy in turn, and its other engines, started by `make run-N`, sending to `inbox`."""
    name, _, engine = request.param.partition(" on ")
    settings = {"SMTP_URL": inbox.smtp_url} | ({SETTING_OF[engine]: engine} if engine else {})
    with running_strategy(name, tmp_path_factory.mktemp(name), **settings) as strategy:
        yield strategy
    assert "Traceback" not in strategy.program.output


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab. After the test, all its child processes must have ended."""
    before = psutil.Process().children()
    yield Lab(tmp_path)
    assert psutil.Process().children() == before
