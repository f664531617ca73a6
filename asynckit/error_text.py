"""The message of an exception, as a string that can always be stored and logged.

The code of a job or of a handler may raise an exception whose `__str__` raises, whose message is a gigabyte long, or
whose message contains lone surrogates, as the name of a file may.
"""

MOST_TEXT = 20_000  # characters


def class_of(error: BaseException) -> str:
    """The name of the exception's class."""
    try:
        return str(type.__getattribute__(type(error), "__name__"))
    except BaseException:
        return "Exception"


def text_of(error: BaseException) -> str:
    """The exception's message, at most MOST_TEXT characters. Lone surrogates are replaced by question marks."""
    try:
        text = str.__getitem__(str(error), slice(MOST_TEXT))  # works for a subclass of str, too
    except BaseException:
        return "(the error cannot be shown: its __str__ fails)"
    return text.encode(errors="replace").decode()


def line_of(error: BaseException) -> str:
    """The class and the message, such as `ValueError: not today`."""
    return ": ".join(filter(None, (class_of(error), text_of(error))))
