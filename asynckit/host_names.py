"""Checks the name of a host before the resolver gets it, which raises a UnicodeError for some names."""


def check_host_name(host: str) -> None:
    """Raises ValueError, without the name in its message, if a label is empty or too long or is not a valid string."""
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError("names a host that cannot exist") from None
