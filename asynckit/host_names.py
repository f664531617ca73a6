"""Checks the name of a host before it is looked up, because the resolver raises a UnicodeError for some names."""


def check_host_name(host: str) -> None:
    """Raises ValueError if a label is empty, is too long, or is not a valid string.

    The message of the error does not contain the name.
    """
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError("names a host that cannot exist") from None
