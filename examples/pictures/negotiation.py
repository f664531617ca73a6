"""Each address answers in HTML to browsers and in JSON to programs, by the header Accept (RFC 9110, 12.5.1)."""

from aiohttp import hdrs, web

VARY = {hdrs.VARY: hdrs.ACCEPT}  # so that no cache gives a browser the JSON of a program


def wants_html(request: web.Request) -> bool:
    """Browsers prefer HTML. A client that takes anything gets JSON."""
    accept = ",".join(request.headers.getall(hdrs.ACCEPT, ["*/*"]))
    return quality(accept, "text/html") > quality(accept, "application/json")


def quality(accept: str, media_type: str) -> float:
    """How much a client wants this type, from 0 to 1. The most specific range counts: `text/html` before `text/*`."""
    ranges = {media_type: 2, f"{media_type.partition('/')[0]}/*": 1, "*/*": 0}
    found = [(-1, 0.0)]
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name in ranges:
            weights = [part[2:] for part in parameters if part.startswith("q=")]
            found.append((ranges[name], _number(weights[0]) if weights else 1.0))
    return max(found)[1]


def _number(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
