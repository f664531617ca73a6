"""Fixtures: the embedded inbox and Valkey, and strategies started by the command that a reader types."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings as hypothesis_settings

from lab.harness.processes import Lab
from tests.support.programs import ROOT, Inbox, Strategy, Valkey, running_inbox, running_strategy, running_valkey

# No deadline for an example: CI machines can be slow, and `make bench` measures speed.
hypothesis_settings.register_profile("six-ways", deadline=None)
hypothesis_settings.load_profile("six-ways")

STRATEGIES = sorted(path.parent.name for path in ROOT.glob("[1-9]_*/__main__.py"))


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inbox]:
    """An inbox for this test module alone."""
    with running_inbox(tmp_path_factory.mktemp("inbox")) as inbox:
        yield inbox


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey for this test module alone."""
    with running_valkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey


@pytest.fixture(autouse=True)
def reset_dial(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test with an inbox, set all faults of its dial to 0."""
    yield
    if "inbox" in request.fixturenames:
        request.getfixturevalue("inbox").dial(latency_ms=0, refuse_rate=0, hang_rate=0, lose_reply_rate=0)


@pytest.fixture(scope="module", params=STRATEGIES)
def strategy(
    request: pytest.FixtureRequest, inbox: Inbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Strategy]:
    """Each strategy in turn, started by `make run-N`, sending to `inbox`."""
    with running_strategy(request.param, tmp_path_factory.mktemp(request.param), SMTP_URL=inbox.smtp_url) as strategy:
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
