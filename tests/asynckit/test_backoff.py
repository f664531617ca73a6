"""The retry rules: which errors are retried, and after which pause."""

import random

import pytest

from asynckit.backoff import BASE_SECONDS, CAP_SECONDS, backoff_seconds, scheduled_pause
from common.mail.errors import InDoubt, LoginFailed, Refused, SendError, TimedOut, Unavailable, Unreachable
from common.mail.retry import concerns_every_email, may_retry
from common.settings import Settings, read_pauses


@pytest.mark.parametrize(
    ("error", "again", "all_emails"),
    [
        (Refused("550"), False, False),
        (Unavailable("451"), True, False),
        (Unreachable("refused"), True, True),
        (TimedOut("slow"), True, True),
        (InDoubt("cut"), True, False),
        (LoginFailed("535"), False, True),
    ],
)
def test_an_error_decides_whether_the_email_is_retried(error: SendError, again: bool, all_emails: bool) -> None:
    assert (may_retry(error), concerns_every_email(error)) == (again, all_emails)


def test_the_longest_pause_doubles_up_to_the_cap() -> None:
    longest = [backoff_seconds(attempt, uniform=lambda _, high: high) for attempt in range(1, 10)]
    assert longest == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert longest[0] == BASE_SECONDS
    assert longest[-1] == CAP_SECONDS
    assert backoff_seconds(100_000, uniform=lambda _, high: high) == CAP_SECONDS


def test_full_jitter_spreads_over_the_whole_range_from_zero() -> None:
    chance = random.Random(6)
    pauses = [backoff_seconds(4, uniform=chance.uniform) for _ in range(1000)]
    assert 0 <= min(pauses) < 0.1
    assert 7.9 < max(pauses) <= 8
    assert 3.8 < sum(pauses) / 1000 < 4.2


def test_the_default_schedule_survives_greylisting_and_hours_of_refusal() -> None:
    defaults = Settings.model_fields
    pauses, attempts = read_pauses(defaults["retry_pauses_seconds"].default), defaults["attempts"].default
    at = [0.0]  # the time of each attempt, without jitter
    for attempt in range(1, attempts):
        at.append(at[-1] + scheduled_pause(pauses, attempt, lambda least, most: least))
    assert any(300 < moment < 600 for moment in at), "one attempt soon after a greylist of five minutes"
    assert 20 * 3600 < at[-1] < 30 * 3600, "about a day"


def test_the_jitter_never_shortens_a_scheduled_pause() -> None:
    assert all(10 <= scheduled_pause((10.0,), attempt) <= 12.5 for attempt in range(1, 100))


@pytest.mark.parametrize("text", ["", "often", "1 -5", "0", "1 inf", "1 nan", "1e9"])
def test_invalid_pauses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected pauses in seconds"):
        read_pauses(text)
