"""Strategy 6 on a NATS of your own: NATS_URL, a login, TLS. A cluster is in test_6_nats_cluster.py."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from common.services.service import running
from eventlog.errors import LogError
from eventlog.nats_client import Nats
from tests.support.event_bus import event_bus, on_jetstream
from tests.support.programs import LIMIT, ROOT, Program, clean_environment, closed_port, someone, until
from tests.support.servers import Inbox

NATS_SERVER = str(ROOT / ".venv" / "bin" / "nats-server")


@contextmanager
def own_nats(tmp_path: Path, *options: str, jetstream: bool = True) -> Iterator[int]:
    """A nats-server that is started by hand, as a reader may have one at work. Yields its port."""
    with closed_port() as port:
        pass
    where = ["-a", "127.0.0.1", "-p", str(port), *(["-js", "-sd", str(tmp_path / "own")] if jetstream else [])]
    program = Program([NATS_SERVER, *where, *options], {})
    try:
        program.wait_for_line("Server is ready")
        yield port
    finally:
        program.stop()


PASSWORD = "a@b:/c?"
IN_URL = quote(PASSWORD, safe="")


@pytest.mark.parametrize(
    ("options", "login"),
    [(["--user", "jo", "--pass", PASSWORD], f"jo:{IN_URL}@"), (["--auth", PASSWORD], f"{IN_URL}@")],
    ids=["password", "token"],
)
def test_nats_url_leads_to_a_server_of_your_own(inbox: Inbox, tmp_path: Path, options: list[str], login: str) -> None:
    to = someone()
    with own_nats(tmp_path, *options) as port:
        with on_jetstream(inbox, tmp_path, NATS_URL=f"nats://{login}127.0.0.1:{port}") as strategy:
            assert strategy.send(to).status == 202
            inbox.wait_for(to)
            assert running(tmp_path, "nats") is None, "the embedded one is not started"
        wrong = refused_start(tmp_path, f"nats://jo:secret@127.0.0.1:{port}")
        assert wrong == "NATS_URL: NATS refuses the login"
        assert refused_make(f"nats://jo:no@127.0.0.1:{port}") == [wrong], "one line, not one of each role"


def refused_make(url: str, **environment: str) -> list[str]:
    """What `make run-6` prints when it does not start."""
    made = Program(["make", "-s", "run-6"], {"LOG": "jetstream", "NATS_URL": url, "PORT": "0"} | environment)
    assert made.process.wait(LIMIT) == 2
    made.stop()
    return [line for line in made.lines if not line.startswith("make: ")]


def certificate_files(folder: Path, authority: trustme.CA, *names: str) -> list[str]:
    """The options of a nats-server that has a certificate for these names."""
    certificate = authority.issue_cert(*names)
    key, cert = folder / f"{names[0]}-key.pem", folder / f"{names[0]}-cert.pem"
    certificate.private_key_pem.write_to_path(str(key))
    certificate.cert_chain_pems[0].write_to_path(str(cert))
    return ["--tls", "--tlscert", str(cert), "--tlskey", str(key)]


def test_a_server_with_tls(inbox: Inbox, tmp_path: Path) -> None:
    authority, to = trustme.CA(), someone()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trusted = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    with own_nats(tmp_path, *certificate_files(tmp_path, authority, "localhost")) as port:
        with on_jetstream(inbox, tmp_path, NATS_URL=f"tls://localhost:{port}", **trusted) as strategy:
            assert strategy.send(to).status == 202
            inbox.wait_for(to)
        assert "eof_received" not in strategy.program.output
        [line] = refused_make(f"tls://localhost:{port}")
        assert line.startswith("NATS_URL: NATS: the certificate of the server is not valid: ")
        [line] = refused_make(f"tls://127.0.0.1:{port}", **trusted)
        assert "IP address mismatch" in line


async def test_each_server_of_a_cluster_has_a_certificate_for_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with (
        closed_port() as port_of_a_dead_server,
        own_nats(tmp_path, *certificate_files(tmp_path, authority, "127.0.0.1")) as port,
    ):
        async with Nats(f"tls://localhost:{port_of_a_dead_server},tls://127.0.0.1:{port}") as connection:

            async def is_connected() -> bool:
                with suppress(LogError):
                    return bool(await connection.api("INFO"))
                return False

            await until(is_connected, "it connects to the second server")


def test_tls_means_that_the_password_is_never_sent_unencrypted(tmp_path: Path) -> None:
    with own_nats(tmp_path, "--user", "jo", "--pass", PASSWORD) as port:
        line = "NATS_URL: NATS: the server does not offer TLS; write nats:// in place of tls://"
        assert refused_make(f"tls://jo:{IN_URL}@127.0.0.1:{port}") == [line]


def test_a_server_without_jetstream_is_one_line(tmp_path: Path) -> None:
    with own_nats(tmp_path, jetstream=False) as port:
        line = "NATS_URL: NATS: the server has no JetStream (nats-server -js)"
        assert refused_make(f"nats://127.0.0.1:{port}") == [line]


def test_an_account_without_jetstream_is_one_line(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text("accounts { A { jetstream: enabled }, B { users: [{ user: jo, password: secret }] } }\n")
    with own_nats(tmp_path, "-c", str(config)) as port:
        line = "NATS_URL: NATS: JetStream not enabled for account"
        assert refused_make(f"nats://jo:secret@127.0.0.1:{port}") == [line]


def refused_start(tmp_path: Path, url: str) -> str:
    """The only line of a server that does not start."""
    environment = clean_environment() | {"LOG": "jetstream", "NATS_URL": url, "PORT": "0", "DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "6_event_bus", "server"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1]


def test_a_server_that_cannot_be_reached_is_one_line_and_a_503_until_it_is_there(inbox: Inbox, tmp_path: Path) -> None:
    environment = {"LOG": "jetstream", "ROLE": "server"}
    with (
        closed_port() as port,
        event_bus(inbox, tmp_path, NATS_URL=f"nats://127.0.0.1:{port}", **environment) as strategy,
    ):
        strategy.program.wait_for_line("NATS: cannot connect")
        assert strategy.send(someone()).status == 503
        assert not strategy.healthy()
        assert strategy.stats()["waiting"] is None


def test_a_bad_url_is_one_line_that_does_not_repeat_it(tmp_path: Path) -> None:
    line = refused_start(tmp_path, "nats://x:secret")
    assert line.startswith("NATS_URL: ")
    assert "secret" not in line
