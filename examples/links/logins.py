"""Separates the user and password from a URL, so that they never reach a job, a report or a log."""

from urllib.parse import unquote, urlsplit

from aiohttp import encode_basic_auth


def split_login(url: str) -> tuple[str, str | None]:
    """`http://user:password@host/path` -> `http://host/path`, and the `Authorization` header, if there is a login."""
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = login.partition(":")
    return parts._replace(netloc=place).geturl(), encode_basic_auth(unquote(user), unquote(password), "utf-8")


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
