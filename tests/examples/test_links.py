"""The link checker against a site of its own, as a reader starts it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from examples.links.fetch import is_public, retry_after
from examples.links.html import links_of
from examples.links.report import write_reports
from examples.links.store import Result, Row, Store, Target
from tests.support.programs import LIMIT, ROOT, Program, wait_until
from tests.support.servers import Valkey


@pytest.fixture
def site() -> Iterator[str]:
    program = Program([sys.executable, "-m", "tests.support.site", "0"], {})
    try:
        yield program.wait_for_line("listening on (.*)")[1]
    finally:
        program.stop()


def asked(site: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{site}log", timeout=LIMIT) as answer:
        found: dict[str, int] = json.load(answer)
        return found


def command(url: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "examples.links", "--per-second", "200", *options, url]


def check(site: str, valkey: Valkey, data_dir: Path, *options: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """The exit status, the reported links by URL without the site's address, and what it printed."""
    environment = os.environ | {"DATA_DIR": str(data_dir), "REDIS_URL": valkey.url}
    done = subprocess.run(
        command(site, *options, "--out", str(data_dir / "out")),
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    rows = json.loads((data_dir / "out" / "links.json").read_text())
    return done.returncode, {row["url"].removeprefix(site): row for row in rows}, done.stdout + done.stderr


def test_every_kind_of_link_is_judged(site: str, valkey: Valkey, tmp_path: Path) -> None:
    status, links, printed = check(site, valkey, tmp_path, "--private", "--depth", "2")
    assert status == 1, printed
    states = {url: (row["state"], row["status"]) for url, row in links.items() if not url.startswith("http")}
    assert states == {
        "": ("ok", 200),
        "good": ("ok", 200),
        "missing": ("dead", 404),
        "redirect": ("ok", 200),
        "loop": ("dead", None),
        "to-missing": ("dead", 404),
        "flaky": ("ok", 200),
        "busy": ("ok", 200),
        "broken": ("dead", 500),
        "no-head": ("ok", 200),
        "latin": ("ok", 200),
        "ümlaut": ("ok", 200),
        "based": ("ok", 200),
        "sub/relative": ("ok", 200),
        "secret/page": ("skipped", None),
        "deep/1": ("ok", 200),
        "deep/2": ("ok", 200),
        "deep/3": ("ok", 200),
        "file": ("ok", 200),
    }
    assert links["missing"]["pages"] == [site]
    requests = asked(site)
    assert requests["GET /broken"] == 4, "5xx is tried again"
    assert requests["GET /missing"] == 2, "404 is final: asked for itself and by the redirect to it"
    assert "GET /secret/page" not in requests
    assert "GET /not-followed" not in requests
    assert requests["GET /robots.txt"] == 2, "once for each of the two hosts"
    assert "HEAD /deep/3" in requests, "at the last step links are checked, and not read"
    assert "GET /deep/4" not in requests
    assert requests["HEAD /no-head"] == 1, "another host is asked by HEAD first, and by GET if that is refused"
    assert "404" in printed
    assert "dead" in (tmp_path / "out" / "links.html").read_text()
    assert (tmp_path / "out" / "links.csv").read_text().startswith("url,state,status,reason,milliseconds,pages\n")


def test_a_private_network_is_refused_unless_it_is_allowed(site: str, valkey: Valkey, tmp_path: Path) -> None:
    for url in (site, site.replace("127.0.0.1", "localhost"), site.replace("127.0.0.1", "0x7f000001")):
        status, links, _ = check(url, valkey, tmp_path / url[7:12])
        assert status == 1
        [(_, row)] = links.items()
        assert (row["state"], "private network" in row["reason"]) == ("skipped", True)
    assert asked(site) == {}


def more_asked(site: str, count: int) -> bool:
    return sum(asked(site).values()) > count


def test_a_killed_run_goes_on_where_it_was(site: str, valkey: Valkey, tmp_path: Path) -> None:
    start = f"{site}many/0"
    environment = {"DATA_DIR": str(tmp_path), "REDIS_URL": valkey.url, "LEASE_SECONDS": "1"}
    for _ in range(2):
        before = sum(asked(site).values())
        program = Program(command(start, "--private", "--jobs", "3"), environment)
        wait_until(partial(more_asked, site, before + 15), "some links are checked")
        program.stop(signal.SIGKILL)
    status, links, printed = check(start, valkey, tmp_path, "--private", "--jobs", "10")
    assert status == 0, printed
    assert len(links) == 100
    assert {row["state"] for row in links.values()} == {"ok"}
    requests = {path: count for path, count in asked(site).items() if "/many/" in path}
    assert len(requests) == 100
    assert sum(requests.values()) <= 100 + 2 * 3 + 3, "at most what was in flight is asked for again"


def test_a_second_run_starts_again_when_the_first_is_complete(site: str, valkey: Valkey, tmp_path: Path) -> None:
    for number in (1, 2):
        assert check(f"{site}good", valkey, tmp_path, "--private")[0] == 0
        assert asked(site)["GET /good"] == number


@pytest.mark.parametrize(
    "url", ["", "ftp://example.com", "example.com", "http://", "http://[bad", "http://host:x/", "http://h/\udcff"]
)
def test_a_bad_url_is_one_line_and_exit_2(url: str) -> None:
    done = subprocess.run(command(url), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 2
    assert "expected an http or https URL" in done.stderr.splitlines()[-1]


def test_the_login_in_the_url_is_used_and_appears_nowhere(site: str, valkey: Valkey, tmp_path: Path) -> None:
    first = site.replace("://", "://jo:geheim%401@") + "members/"
    status, links, printed = check(first, valkey, tmp_path, "--private")
    assert (status, links[f"{site}members/"]["state"], links[f"{site}members/page"]["state"]) == (1, "ok", "ok")
    assert "missing (" in printed
    assert "http://[::1]:1/" in links
    left = [path for path in tmp_path.rglob("*") if path.is_file() and b"geheim" in path.read_bytes()]
    assert (left, "geheim" in printed, valkey.client.keys("*geheim*")) == ([], False, [])


def test_a_bad_url_with_a_password_is_not_repeated(tmp_path: Path) -> None:
    url = "http://jo:geheim@host:x/"
    done = subprocess.run(command(url), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, "geheim" in done.stdout + done.stderr) == (2, False)


def test_without_redis_it_is_one_line_and_exit_2(tmp_path: Path) -> None:
    environment = os.environ | {"DATA_DIR": str(tmp_path), "REDIS_URL": "redis://jo:geheim@127.0.0.1:1/0"}
    done = subprocess.run(
        command("http://127.0.0.1:1/"),
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    line = "Redis: Error 111 connecting to 127.0.0.1:1."
    assert (done.returncode, done.stderr.count("\n"), done.stderr.startswith(line)) == (2, 1, True), done.stderr


def test_links_are_absolute_once_and_without_fragments() -> None:
    html = b"<base href='/sub/'><a href='x#1'>1</a><A HREF=x#2>2</A><a href='?q'>3</a>"
    html += b"<a href='mailto:x'>4</a><area href='//h/'>"
    assert links_of(html, None, "http://host/page") == ["http://host/sub/x", "http://host/sub/?q", "http://h/"]


@pytest.mark.parametrize("html", [b"", b"\x00\xff\xfe", b"<a href=", b"<" * 10_000, b"<a href='http://[::'>"])
def test_broken_html_has_no_links_and_raises_nothing(html: bytes) -> None:
    assert links_of(html, "no-such-charset", "http://host/") == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:127.0.0.1", False),
        ("2606:4700::1", True),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("7") == 7.0
    assert retry_after("Fri, 01 Jan 1999 00:00:00 GMT") == 0.0
    assert retry_after("999999") == 120.0
    assert retry_after("soon") is retry_after(None) is None


def test_a_link_that_turns_out_to_be_a_page_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "links.sqlite")
    assert store.add([Target("u", 3, False)], "p") == [Target("u", 3, False)]
    assert store.add([Target("u", 3, False)], "q") == []
    store.finish("u", Result("ok", 200))
    assert store.add([Target("u", 1, True)], "q") == [Target("u", 1, True)]
    assert store.counts()["waiting"] == 1
    assert store.rows()[0].pages == ["p", "q"]
    store.close()


def test_a_report_escapes_what_it_found(tmp_path: Path) -> None:
    page, table, _ = write_reports([Row("=http://x/<script>", "dead", 404, "<b>", 1, ["@p"])], "<i>", tmp_path)
    assert "<script>" not in page.read_text()
    assert "<i>" not in page.read_text()
    assert table.read_text().splitlines()[1] == "'=http://x/<script>,dead,404,<b>,1,'@p"
