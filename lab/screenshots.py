"""`make screenshots`: take pictures of the running strategies and of the browser lab, and write them into docs/.

This needs an installed Chromium. `make screenshots PAGES="lab"` takes only some of them: pages, resque, log, lab.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from lab.browser.sequences import do, lab_in_browser
from lab.chromium import BROWSERS, find_browser
from lab.harness.processes import ROOT, Lab

PICTURES = ROOT / "docs"
START_SECONDS = 60.0
SETTLE_SECONDS = 2.0
"""Within which an email is sent or has failed."""
LOAD_MILLISECONDS = 4000
"""How long a page may load. It keeps a stream of figures open, so loading never ends by itself."""


@contextmanager
def running(number: int, folder: Path) -> Iterator[tuple[str, str]]:
    """`make run-N` on free ports. Yields the addresses of its page and of its inbox."""
    settings = ["PORT=0", "INBOX_PORT=0", "INBOX_SMTP_PORT=0", "VALKEY_PORT=0", f"DATA_DIR={folder}"]
    command = ["make", f"run-{number}", *settings]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            page = inbox = ""
            for line in program.stdout:
                if " listens on " in line:
                    page = line.split()[-1]
                elif "see it arrive" in line:
                    inbox = line.split()[3]
                elif "stop it all" in line:
                    break
            yield page, inbox
        finally:
            program.terminate()


def picture(browser: str, address: str, name: str, folder: Path, *, height: int) -> None:
    path = PICTURES / f"{name}.png"
    command = [
        browser,
        "--headless",
        "--no-sandbox",  # the pages are our own
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder}",
        f"--timeout={LOAD_MILLISECONDS}",
        f"--window-size=1000,{height}",
        f"--screenshot={path}",
        address,
    ]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=START_SECONDS)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


def send(page: str, *names: str) -> None:
    """Ask for an email to each of these people."""
    for name in names:
        with urlopen(f"{page}{name}@example.com/Hello/How%20are%20you%3F") as answer:  # noqa: S310  our own server
            answer.read()


def dial(inbox: str, **faults: float) -> None:
    request = Request(f"{inbox}api/faults", json.dumps(faults).encode(), method="PUT")  # noqa: S310  our own server
    urlopen(request).close()  # noqa: S310


def fill(page: str, inbox: str) -> None:
    """Three emails that are sent, one that the mail server refuses for good, and two that are in flight."""
    send(page, "alice", "bob", "carol")
    time.sleep(SETTLE_SECONDS)
    dial(inbox, refuse_rate=1, refuse_code=550)
    send(page, "dave")
    time.sleep(SETTLE_SECONDS)
    dial(inbox, refuse_rate=0, hang_rate=1)
    send(page, "erin", "frank")
    time.sleep(SETTLE_SECONDS)


async def picture_of_lab(folder: Path) -> None:
    """After the worker of every lane was killed, with a steady rate and a burst on its way."""
    path = PICTURES / "lab.png"
    async with lab_in_browser(Lab(folder), folder) as (page, _, _):
        await page.evaluate("document.getElementById('hint-close').click(); document.activeElement.blur()")
        await do(page, do="experiment", name="worker")
        await page.wait_for("window.lab.frame.experiment?.phase === 'done'", 120.0)
        await do(page, do="load", lanes=list("123456"), rate=10)
        await asyncio.sleep(SETTLE_SECONDS)
        await do(page, do="burst", lanes=list("123456"), count=60)
        await page.wait_for("window.lab.frame.lanes.filter(lane => lane.numbers.in_flight > 5).length >= 3")
        await page.picture(path)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


def main() -> None:
    browser = find_browser()
    if browser is None:
        sys.exit(f"this needs a browser, one of {', '.join(BROWSERS)}, such as Debian's package chromium")
    wanted = os.environ.get("PAGES", "pages resque log lab").split()
    PICTURES.mkdir(exist_ok=True)
    if "pages" in wanted:
        pictures_of_pages(browser)
    for number, name, height in ((5, "resque", 880), (6, "log", 1020)):
        if name not in wanted:
            continue
        with tempfile.TemporaryDirectory() as folder, running(number, Path(folder) / "data") as (page, inbox):
            fill(page, inbox)
            picture(browser, f"{page}{name}", name, Path(folder) / "browser", height=height)
            dial(inbox, hang_rate=0)
    if "lab" in wanted:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            asyncio.run(picture_of_lab(Path(folder)))


def pictures_of_pages(browser: str) -> None:
    with tempfile.TemporaryDirectory() as folder, running(1, Path(folder) / "data") as (page, inbox):
        for number in range(1, 6):
            with urlopen(f"{page}alice@example.com/Hello%20{number}/How%20are%20you%3F") as answer:  # noqa: S310  our own server
                answer.read()
        picture(browser, page, "page", Path(folder) / "browser", height=760)
        picture(browser, inbox, "inbox", Path(folder) / "browser", height=620)


if __name__ == "__main__":
    main()
