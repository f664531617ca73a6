"""Settings: their names and defaults, one clear line for a bad value, and no password in any output."""

import subprocess
import sys
from pathlib import Path

import pytest

from common.address import is_loopback
from common.settings import Settings, read_settings, setting_names
from common.smtp_url import SmtpServer, read_smtp_url
from tests.support.programs import ROOT, SETTINGS
from tests.support.smtp_peer import settings


def test_each_setting_has_its_default() -> None:
    defaults = settings()
    assert (defaults.host, defaults.port) == ("127.0.0.1", 8080)
    assert (defaults.email_from, defaults.attempts, defaults.emails_per_second) == ("workshop@example.com", 31, None)
    assert defaults.smtp == SmtpServer("127.0.0.1", 1025)
    assert defaults.inbox_page == "http://127.0.0.1:8025/"
    assert Settings.model_fields["data_dir"].default == Path(".data")


def test_every_setting_is_in_the_example() -> None:
    """Except ROLE, WORKERS and DEMO, which are meant for the command line, and SIBLINGS, which `make run-N` sets."""
    example = (ROOT / ".env.example").read_text()
    for name in setting_names().values():
        assert name in ("ROLE", "WORKERS", "DEMO", "SIBLINGS") or f"#{name}=" in example, name


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example.com", SmtpServer("mail.example.com", 25)),
        ("smtp://mail.example.com:2525/", SmtpServer("mail.example.com", 2525)),
        ("smtp://jo:pw@mail.example.com", SmtpServer("mail.example.com", 587, False, "jo", "pw")),
        ("smtps://mail.example.com", SmtpServer("mail.example.com", 465, True)),
        ("smtps://jo%40x.com:p%3A%2Fw@mail.x.com:1465", SmtpServer("mail.x.com", 1465, True, "jo@x.com", "p:/w")),
        ("smtp://[::1]:25", SmtpServer("::1", 25)),
    ],
)  # fmt: skip
def test_a_url_names_the_mail_server(url: str, server: SmtpServer) -> None:
    assert read_smtp_url(url) == server


@pytest.mark.parametrize(
    "url",
    [
        "mail.example.com", "http://mail.example.com", "smtp://", "smtp://:25", "smtp://mail:port", "smtp://mail:99999",
        "smtp://mail:0", "smtp://jo@mail", "smtp://mail/path", "smtp://mail?x=1", "smtp://[::1", "smtp://jo:p/w@mail", "smtp://a..b",
    ],
)  # fmt: skip
def test_the_error_for_a_bad_url_does_not_repeat_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_smtp_url(url)
    assert url == "smtp://" or url not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("x.localhost", True),
     ("example.com", False), ("10.0.0.1", False), ("localhost.example.com", False), ("", False)],
)  # fmt: skip
def test_loopback_names_and_addresses_are_recognised(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_no_repr_shows_a_password() -> None:
    ours = settings(smtp_url="smtp://jo:secret@mail.example.com", redis_url="redis://:secret@localhost")
    assert "secret" not in repr(ours) + str(ours) + repr(ours.smtp) + str(ours.smtp)


BAD = [
    ("PORT", "http"), ("INBOX_PORT", "70000"), ("SMTP_URL", "smtp://jo:secret@"), ("REDIS_URL", "http://:secret@x"),
    ("EMAILS_PER_SECOND", "inf"), ("ATTEMPTS", "0"), ("EMAIL_FROM", "nobody"), ("WORKERS", "many"),
    ("SMTP_SEND_SECONDS", "nan"), ("NATS_URL", "http://secret"), ("NATS_URL", "nats://:4222"),
    ("NATS_URL", "nats://secret:0"), ("NATS_URL", "nats://secret:y"), ("NATS_URL", "nats://a,redis://secret"),
    ("HOST", "a..b"), ("HOST", f"{'a' * 64}.example.com"), ("HOST", "\udcff"), ("PAGE_PASSWORD", "secret\udcff"),
    ("REDIS_URL", "redis://:secret@a..b"), ("AMQP_URL", "amqp://jo:secret@a..b/"), ("NATS_URL", "nats://secret@a..b"),
    ("DATABASE_URL", "postgresql://jo:secret@a..b/x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_means_one_clear_line_and_exit_2(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # without the reader's .env
    for setting in SETTINGS:
        monkeypatch.delenv(setting, raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        read_settings()
    output = capsys.readouterr()
    assert (ended.value.code, output.out) == (2, "")
    [line] = output.err.splitlines()
    assert line.startswith(f"{name}: ")
    assert "secret" not in line


def test_a_dotenv_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1111\nATTEMPTS=7\nEMAIL_FROM=\n# a comment\nUNKNOWN=1\n")
    command = [
        sys.executable,
        "-c",
        "from common.settings import read_settings as r; s = r(); print(s.port, s.attempts, s.email_from)",
    ]
    environment = {"PYTHONPATH": str(ROOT), "PORT": "2222"}
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["2222", "7", "workshop@example.com"]


def test_the_tests_clear_every_setting_of_the_shell_they_run_in() -> None:
    assert set(setting_names().values()) <= SETTINGS


def test_the_three_nodes_of_the_embedded_nats_keep_each_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # without a .env
    assert (Settings().nats, Settings().event_replicas) == ("nats://127.0.0.1:4322", 1)
    for name, value in {"NATS": "cluster", "NATS_1_PORT": "1", "NATS_2_PORT": "2", "NATS_3_PORT": "3"}.items():
        monkeypatch.setenv(name, value)
    nodes = "nats://127.0.0.1:1,nats://127.0.0.1:2,nats://127.0.0.1:3"
    assert (Settings().nats, Settings().event_replicas) == (nodes, 3)
    monkeypatch.setenv("NATS_URL", "nats://nats.example.com")
    assert (Settings().nats, Settings().event_replicas) == ("nats://nats.example.com", 1)
    monkeypatch.setenv("NATS_REPLICAS", "5")
    assert Settings().event_replicas == 5
