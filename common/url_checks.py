"""Checks of settings: each returns the value, or raises ValueError with a reason that contains no part of the value.

A bad setting ends the program with one line, into which pydantic puts the reason. A URL may contain a password.
"""

from urllib.parse import urlsplit

from pydantic import SecretStr

from asynckit.host_names import check_host_name
from common.smtp_url import read_smtp_url


def check_host(host: str) -> str:
    check_host_name(host)
    return host


def check_password(password: SecretStr) -> SecretStr:
    try:
        password.get_secret_value().encode()
    except UnicodeError:
        raise ValueError("is not valid UTF-8") from None
    return password


def check_smtp_url(url: SecretStr) -> SecretStr:
    read_smtp_url(url.get_secret_value())
    return url


def check_redis_url(url: SecretStr) -> SecretStr:
    from asynckit.redis_client import redis_client  # here: without a REDIS_URL a program starts faster

    redis_client(url.get_secret_value())  # connects to nothing, but checks the URL
    return url


def check_amqp_url(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL; expected amqp://user:password@host:5672/virtual-host") from None
    if parts.scheme not in ("amqp", "amqps"):
        raise ValueError("must begin with amqp:// or amqps://")
    if not parts.hostname:
        raise ValueError("names no host; expected amqp://user:password@host:5672/virtual-host")
    if port == 0 or parts.fragment or parts.path.count("/") > 1:
        raise ValueError("must end with host, port and virtual host; percent-encode / ? # and @ in its parts")
    check_host_name(parts.hostname)
    return url


def check_database_url(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL; expected postgresql://user:password@host:5432/database") from None
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError("must begin with postgresql://")
    check_host_name(parts.hostname or "")
    return url


def check_nats_url(url: SecretStr) -> SecretStr:
    """One server, or several of a cluster, separated by commas."""
    for one in url.get_secret_value().split(","):
        try:
            parts = urlsplit(one.strip())
            port = parts.port
        except ValueError:
            raise ValueError("is not a URL; expected nats://user:password@host:4222") from None
        if parts.scheme not in ("nats", "tls"):
            raise ValueError("must begin with nats:// or tls://")
        if not parts.hostname:
            raise ValueError("names no host; expected nats://user:password@host:4222")
        if port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("must end with host and port; percent-encode / ? # and @ in user and password")
        check_host_name(parts.hostname)
    return url
