"""The links of a page."""

from collections.abc import Iterator
from urllib.parse import urldefrag, urljoin, urlsplit

from bs4 import BeautifulSoup

from .logins import split_login

MAX_URL = 2000  # characters


def links_of(body: bytes, charset: str | None, url: str) -> list[str]:
    """The http and https URLs that a page links to, absolute, without fragments and logins, each once, in order.

    `charset` is that of the Content-Type header; without one, the library reads the page's own declaration. Broken HTML
    is read as a browser would read it, as far as the library can.
    """
    soup = BeautifulSoup(body, "html.parser", from_encoding=charset)
    base = soup.find("base", href=True)
    start = _join(url, str(base["href"])) if base is not None else url
    return list(dict.fromkeys(_targets(soup, start or url)))


def _targets(soup: BeautifulSoup, base: str) -> Iterator[str]:
    for element in soup.find_all(["a", "area"], href=True):
        if target := _join(base, str(element["href"]).strip()):
            yield target


def _join(base: str, href: str) -> str | None:
    """None for mailto:, javascript: and whatever is not a URL."""
    try:
        url = urldefrag(urljoin(base, href)).url
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > MAX_URL:
        return None
    return split_login(url)[0]
