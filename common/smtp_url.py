"""The mail server that SMTP_URL names."""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from asynckit.host_names import check_host_name
from common.address import is_loopback


@dataclass(frozen=True)
class SmtpServer:
    """The mail server to send to. `tls` means TLS from the first byte (port 465), not STARTTLS."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)

    def __str__(self) -> str:
        """The address for logs and pages, without user and password."""
        return f"{self.host}:{self.port}"


def read_smtp_url(url: str) -> SmtpServer:
    """Read `smtp://[user:password@]host[:port]` or `smtps://…`; user and password are percent-encoded.

    Default ports: 465 for smtps (RFC 8314), 587 for smtp with a login (submission, RFC 6409), else 25.
    Raises ValueError with a reason that repeats no part of the URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL; expected smtp://user:password@host:587") from None
    if parts.scheme not in ("smtp", "smtps"):
        raise ValueError("must begin with smtp:// or smtps://")
    if not parts.hostname:
        raise ValueError("names no host; expected smtp://user:password@host:587")
    if port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must end with the host and port; percent-encode / ? # and @ in user and password")
    if (parts.username is None) != (parts.password is None):
        raise ValueError("needs both user and password, or neither")
    check_host_name(parts.hostname)
    tls = parts.scheme == "smtps"
    user = unquote(parts.username) if parts.username is not None else None
    password = unquote(parts.password) if parts.password is not None else None
    return SmtpServer(parts.hostname, port or (465 if tls else 587 if user else 25), tls, user, password)
