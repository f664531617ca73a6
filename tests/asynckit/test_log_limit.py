"""One line a second: for each limiter, or for all limiters of a process that report the same cause."""

import logging

import pytest

from asynckit import log_limit
from asynckit.log_limit import OncePerSecond

log = logging.getLogger(__name__)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(log_limit, "_shared", {})
    return caplog


def test_limiters_of_the_same_cause_pass_on_one_line_a_second_together(lines: pytest.LogCaptureFixture) -> None:
    parts = [OncePerSecond(logging.getLogger(f"part.{number}"), "Redis") for number in range(5)]
    for part in parts:
        part.warning("cannot reach %s", "Redis")
    assert [record.name for record in lines.records] == ["part.0"]
    parts[0]._second.next = 0.0
    parts[3].warning("100 %% away: %s", "Redis")
    assert lines.messages[1:] == ["100 % away: Redis (and 4 more such lines before)"]


def test_other_causes_are_not_hidden(lines: pytest.LogCaptureFixture) -> None:
    for cause in ("Redis", "the mail server", None, None):
        OncePerSecond(log, cause).warning("%s", cause)
    assert len(lines.messages) == 4
