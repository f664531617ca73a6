"""A web site for the link checker: `python -m tests.support.site PORT`. A path is a case; /log counts requests."""

import asyncio
import sys
from collections import Counter
from typing import Any

from aiohttp import encode_basic_auth, web

HOME = """<html><head><title>Home</title></head><body>
<a href="/good">good</a> <a href="/good#part">the same</a> <a href="missing">missing</a>
<a href="/redirect">moved</a> <a href="/loop">loop</a> <a href="/to-missing">moved to nothing</a>
<a href="/flaky">503 once</a> <a href="/busy">429 once</a> <a href="/broken">always 500</a>
<a href="/no-head">HEAD refused</a> <a href="/latin">latin</a> <a href="/based">based</a>
<a href="/secret/page">robots</a> <a href="mailto:a@example.com">mail</a> <a href="javascript:void(0)">script</a>
<a href="http://[bad">broken</a> <a href="tel:1">phone</a> <a href="//127.0.0.1:1/">nobody listens</a>
<a href="//localhost:PORT/no-head">another host</a> <a href="//localhost:PORT/good">another</a>
<a href="/unclosed>broken html <p><a href=/deep/1>deep</a> <a href='/file'>file
</body>"""


class Site:
    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.app = web.Application()
        self.app.router.add_route("*", "/{path:.*}", self.answer)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/log":
            return web.json_response(self.asked)
        self.asked[f"{request.method} {path}"] += 1
        first = self.asked[f"{request.method} {path}"] == 1
        if path.startswith("/many"):
            return await many(path)
        match path:
            case "/":
                return page(HOME.replace("PORT", str(request.url.port)))
            case "/robots.txt":
                return web.Response(text="User-agent: *\nDisallow: /secret\n")
            case "/good" | "/no-head" | "/ümlaut" | "/sub/relative" | "/unclosed":
                head_refused = path == "/no-head" and request.method == "HEAD"
                return web.Response(status=405) if head_refused else page("<p>nothing here</p>")
            case "/redirect":
                return web.Response(status=301, headers={"Location": "/good"})
            case "/to-missing":
                return web.Response(status=302, headers={"Location": "/missing"})
            case "/loop":
                return web.Response(status=302, headers={"Location": "/loop"})
            case "/flaky":
                return web.Response(status=503) if first else page("<p>well again</p>")
            case "/busy":
                return web.Response(status=429, headers={"Retry-After": "1"}) if first else page("<p>free</p>")
            case "/broken":
                return web.Response(status=500)
            case "/latin":
                text = "<meta charset=iso-8859-1><a href='/ümlaut'>ü</a>"
                return web.Response(body=text.encode("latin-1"), headers={"Content-Type": "text/html"})
            case "/based":
                return page("<base href='/sub/'><a href='relative'>in sub</a>")
            case "/members/" | "/members/page":
                if request.headers.get("Authorization") != encode_basic_auth("jo", "geheim@1"):
                    return web.Response(status=401)
                return page(
                    "<a href='page'>relative</a> <a href='/missing'>dead</a> <a href='//x:geheim@[::1]:1/'>x</a>"
                )
            case "/file":
                return web.Response(body=b"%PDF <a href='/not-followed'>", content_type="application/pdf")
            case _ if path.startswith("/deep/"):
                return page(f"<a href='/deep/{int(path.removeprefix('/deep/')) + 1}'>deeper</a>")
        return web.Response(status=404)


async def many(path: str) -> web.Response:
    """100 pages, each of which takes a moment."""
    await asyncio.sleep(0.05)
    return page("".join(f"<a href='/many/{number}'>{number}</a>" for number in range(100)))


def page(html: str) -> web.Response:
    return web.Response(text=html, content_type="text/html")


async def serve(port: int) -> None:
    runner = web.AppRunner(Site().app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    addresses: list[Any] = runner.addresses
    print(f"listening on http://127.0.0.1:{addresses[0][1]}/", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
