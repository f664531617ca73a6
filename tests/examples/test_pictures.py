"""The picture example as its users meet it: by HTTP, in a browser, and while its processes are killed."""

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from common.services.service import running
from lab.chromium import chromium, find_browser
from tests.support.pictures import Example, a_picture, multipart, running_pictures
from tests.support.programs import START_SECONDS, frozen, wait_until

pytestmark = pytest.mark.timeout(240)  # a database is created, and all programs are killed and started again

MAX_BYTES = 2_000_000
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    short = {"STALE_SECONDS": "3", "RECONCILE_SECONDS": "1", "LEASE_SECONDS": "1", "ORPHAN_SECONDS": "10"}
    with running_pictures(tmp_path_factory.mktemp("data"), MAX_UPLOAD_BYTES=str(MAX_BYTES), **short) as example:
        yield example


@pytest.fixture
def picture(example: Example) -> dict[str, Any]:
    """One that is ready."""
    return example.wait_for(example.upload().json["url"], "ready")


def test_a_picture_is_added_shown_renamed_replaced_and_deleted(example: Example) -> None:
    added = example.form("POST", "/files", {"name": " Rot \n & blau ", "file": ("../c:\\x\\red.png", a_picture())})
    assert (added.status, added.json["name"], added.json["thumbnail"]) == (201, "Rot & blau", None)
    url = added.json["url"]
    assert added.headers["Location"] == url
    ready = example.wait_for(url, "ready")
    assert (ready["format"], ready["width"], ready["height"]) == ("PNG", 400, 300)
    assert ready in example.files()
    for name in ("thumbnail", "large"):
        answer, data = example.request("GET", ready[name])
        assert (answer.headers["Content-Type"], data[8:12]) == ("image/webp", b"WEBP")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "immutable" in answer.headers["Cache-Control"]
    renamed, _ = example.request("PUT", url, json.dumps({"name": "red"}).encode(), Content_Type="application/json")
    assert (renamed.status, renamed.json) == (200, ready | {"name": "red"})
    replaced = example.form("PUT", url, {"name": "blue", "file": ("b.gif", a_picture("GIF", (50, 60), "blue"))})
    assert (replaced.status, replaced.json["state"], replaced.json["name"]) == (200, "uploaded", "blue")
    again = example.wait_for(url, "ready")
    assert (again["format"], again["width"], again["thumbnail"] != ready["thumbnail"]) == ("GIF", 50, True)
    assert len(example.folders(url)) == 1, "the files of the first upload are deleted"
    assert example.request("DELETE", url)[0].status == 204
    assert example.folders(url) == []
    for method in ("GET", "DELETE"):
        assert example.request(method, url)[0].status == 404
    assert example.request("GET", again["large"])[0].status == 404
    assert example.form("PUT", url, {"file": ("b.gif", a_picture())}).status == 404


def test_the_same_addresses_are_pages_for_a_browser(example: Example, picture: dict[str, Any]) -> None:
    for path in ("/", "/files", picture["url"]):
        request = urllib.request.Request(f"{example.url}{path}", headers=BROWSER)
        with urllib.request.urlopen(request, timeout=10) as answer:
            page = answer.read().decode()
            assert answer.headers["Content-Type"].startswith("text/html")
            assert path == "/" or answer.headers["Vary"] == "Accept"
        assert picture["large" if path == picture["url"] else "thumbnail"] in page
    posted = example.form("POST", "/files", {"file": ("<b>.png", a_picture())}, **BROWSER)
    assert (posted.status, posted.headers["Location"]) == (303, "/files")
    page = example.request("GET", "/files", None, **BROWSER)[0].text
    assert "&lt;b&gt;.png" in page
    assert "<b>" not in page
    error = example.form("POST", "/files", {"file": ("x.png", b"text")}, **BROWSER)
    assert error.status == 415
    assert "the file is not a picture" in error.text
    assert "<!doctype html>" in error.text


def test_what_is_no_picture_is_refused_with_the_reason(example: Example) -> None:
    def refused(status: int, reason: str, fields: Any, method: str = "POST", path: str = "/files") -> None:
        answer = example.form(method, path, fields)
        assert (answer.status, reason in answer.text) == (status, True), answer.text

    before = [file["id"] for file in example.files()]
    refused(400, "no file", {"name": "x"})
    refused(400, "no file", {"file": ("", b"")})
    refused(400, "at most once", {"other": "x"})
    refused(415, "JPEG, PNG, GIF and WebP are accepted", {"file": ("x.png", b"<svg></svg>")})
    refused(413, "at most 2,000,000 bytes", {"file": ("x.png", a_picture() + b"x" * MAX_BYTES)})
    refused(413, "the name is too long", {"name": "x" * 20_000, "file": ("x.png", a_picture())})
    content_type, body = multipart({"file": ("x.png", a_picture() + b"x" * MAX_BYTES)})
    chunks = iter([body[at : at + 100_000] for at in range(0, len(body), 100_000)])
    chunked, _ = example.request("POST", "/files", chunks, Content_Type=content_type)
    assert chunked.status == 413, "also without a Content-Length"
    for kind, data in (("application/json", b"{}"), ("image/png", a_picture())):
        assert example.request("POST", "/files", data, Content_Type=kind)[0].status == 415
    for data in (b"", b"--wrong\r\n", b"--b\r\nno header", b"--b\r\n\r\n\r\n--b--"):
        answer, _ = example.request("POST", "/files", data, Content_Type="multipart/form-data; boundary=b")
        assert answer.status == 400, data
    assert example.request("POST", "/files", b"x", Content_Type="multipart/form-data")[0].status == 400
    assert [file["id"] for file in example.files()] == before, "nothing of it was kept"


def test_bad_changes_are_refused(example: Example, picture: dict[str, Any]) -> None:
    for data in (b"", b"{", b"[]", b"{}", b'{"name": 1}', b'{"name": " "}', b"\xff"):
        answer, _ = example.request("PUT", picture["url"], data, Content_Type="application/json")
        assert answer.status == 400, data
    assert example.form("PUT", picture["url"], {"file": ("x.png", b"text")}).status == 415
    for path in (f"/files/{'0' * 36}", f"/files/{picture['id'][:-1]}-", "/files/x", "/files?before=x"):
        assert example.request("GET", path)[0].status == 404
    assert example.request("PATCH", picture["url"])[0].status == 405
    assert example.request("GET", picture["url"])[0].json == picture


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_sites_cannot_change_anything(example: Example, picture: dict[str, Any], method: str) -> None:
    path = "/files" if method == "POST" else picture["url"]
    for headers in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Host": "evil.example"}):
        assert example.form(method, path, {"file": ("x.png", a_picture())}, **headers).status == 403
    assert picture in example.files()


def test_a_picture_that_cannot_be_resized_says_why(example: Example) -> None:
    url = example.upload(a_picture("JPEG")[:500]).json["url"]
    failed = example.wait_for(url, "failed")
    assert "damaged" in failed["reason"]
    answer, _ = example.request("GET", f"{url}/large.webp")
    assert (answer.status, "the picture is failed" in answer.text) == (404, True)
    assert example.form("PUT", url, {"file": ("x.png", a_picture())}).status == 200
    assert example.wait_for(url, "ready")["reason"] == ""


def big_picture(folder: Path) -> bytes:
    """One that takes about half a second."""
    path = folder / "big.jpg"
    if not path.exists():
        Image.effect_noise((1500, 1200), 60).convert("RGB").save(path, quality=70)
    return path.read_bytes()


def kill(example: Example, victim: str) -> None:
    if victim in ("server", "worker"):
        os.kill(example.pid(victim), signal.SIGKILL)
    else:
        facts = wait_until(lambda: running(example.data_dir, victim), f"{victim} runs", START_SECONDS)
        os.kill(facts["pid"], signal.SIGKILL)


def accepted(example: Example, data: bytes) -> bool:
    """Try to upload; whether it was accepted. A repeated upload may make a second picture."""
    try:
        return example.upload(data, "big.jpg").status == 201
    except OSError:
        return False


def unfinished(example: Example) -> bool:
    try:
        return any(file["state"] in ("uploaded", "being resized") for file in example.files())
    except (OSError, KeyError):  # it is being started again
        return True


def files_match_rows(example: Example) -> bool:
    """Whether each ready picture has its three files, and each file a row."""
    expected = {
        f"{file['id']}/{file['large'].rpartition('=')[2]}/{name}"
        for file in example.files()
        for name in ("original", "thumbnail.webp", "large.webp")
    }
    store = example.data_dir / "pictures"
    folders = os.walk(store)  # it ignores folders that the sweep deletes meanwhile
    return {str((Path(folder) / name).relative_to(store)) for folder, _, names in folders for name in names} == expected


def test_nothing_is_lost_or_left_behind_whatever_is_killed(example: Example, tmp_path: Path) -> None:
    for file in example.files():
        example.request("DELETE", file["url"])
    data, count = big_picture(tmp_path), 0
    for victim in ("worker", "server", "valkey", "postgres"):
        for _ in range(2):
            wait_until(lambda: accepted(example, data), "an upload is accepted", START_SECONDS)
            count += 1
        if victim == "worker":
            wait_until(lambda: any(f["state"] == "being resized" for f in example.files()), "the worker has begun")
        kill(example, victim)
    wait_until(lambda: accepted(example, data), "an upload is accepted", START_SECONDS)
    wait_until(lambda: not unfinished(example), f"all are resized: {example.program.output}", START_SECONDS)
    files = example.files()
    assert {file["state"] for file in files} == {"ready"}, files
    assert len(files) >= count + 1
    wait_until(lambda: files_match_rows(example), "the sweep deletes the files of uploads that failed", START_SECONDS)
    for victim in ("server", "worker"):
        example.program.wait_for_line(rf"{victim} @ \d+ was killed by SIGKILL")


def test_a_server_killed_between_row_and_job_loses_nothing(example: Example) -> None:
    facts = running(example.data_dir, "valkey")
    assert facts is not None
    with frozen(facts["pid"]):
        url = example.upload().json["url"]  # the row and the outbox row are there, and Redis takes no job
        example.kill("server")
    wait_until(example.healthy, "the server answers", START_SECONDS)
    example.wait_for(url, "ready")


def test_the_running_worker_sweeps(example: Example, picture: dict[str, Any]) -> None:
    [folder] = example.folders(picture["url"])
    stray = folder.parent / "0190b2f0-0000-7000-8000-000000000000" / "original"
    stray.parent.mkdir()
    stray.write_bytes(b"its row was never written")
    os.utime(stray, (1, 1))
    (folder / "thumbnail.webp").unlink()
    wait_until(lambda: not stray.exists(), "the stray file is deleted")
    wait_until(lambda: (folder / "thumbnail.webp").exists(), "the lost version is there again")
    example.wait_for(picture["url"], "ready")


@pytest.mark.skipif(find_browser() is None, reason="Chromium is not installed")
async def test_in_a_browser_with_the_keyboard_alone_and_on_a_phone(example: Example, tmp_path: Path) -> None:
    for file in example.files():
        example.request("DELETE", file["url"])
    for name, data in (("red.png", a_picture()), ("text.png", b"text")):
        (tmp_path / name).write_bytes(data)
    browser = find_browser()
    assert browser is not None
    async with chromium(browser, tmp_path / "profile") as page:
        await page.open(f"{example.url}/files")
        loaded = "document.readyState === 'complete'"  # the scripts run, too
        await page.wait_for(f"{loaded} && !document.querySelector('.note').hidden")
        await page.evaluate("window.notReloaded = true")
        page.files_to_choose = [tmp_path / "text.png"]
        await page.tab_to("#file")
        await page.press("Enter")
        await page.wait_for("document.querySelector('#file').files.length === 1")
        await page.tab_to("#upload button")
        await page.press("Enter")
        said = await page.wait_for("document.querySelector('.said.problem')?.textContent")
        assert "text.png: the file is not" in said

        page.files_to_choose = [tmp_path / "red.png"]
        await page.evaluate("document.activeElement.blur()")
        await page.tab_to("#file")
        await page.press("Enter")
        await page.wait_for("document.querySelector('#file').files.length === 1")
        await page.tab_to("#upload button")
        await page.press("Enter")
        await page.wait_for("document.querySelector('.pictures img')?.naturalWidth === 320")
        assert await page.evaluate("document.querySelector('.pictures .pill').textContent") == "ready"
        assert await page.evaluate("window.notReloaded") is True
        for width in (360, 1200):
            await page.resize(width, 700, phone=width < 600)
            await page.wait_for(f"innerWidth === {width} && document.documentElement.scrollWidth <= {width}")

        await page.tab_to(".pictures a")
        await page.press("Enter")
        await page.wait_for(f"{loaded} && document.querySelector('img.large')?.naturalWidth === 400")
        await page.resize(360, 700, phone=True)
        await page.wait_for("innerWidth === 360 && document.documentElement.scrollWidth <= 360")
        await page.tab_to("#name")  # with the tab key, a browser selects what the field holds
        await page.type("sunset")
        await page.press("Enter")
        await page.wait_for("document.querySelector('h1').textContent.trim() === 'sunset'")
        assert [file["name"] for file in example.files()] == ["sunset"]
        await page.tab_to("#delete button")
        await page.press("Enter")  # the question that follows is answered with yes
        await page.wait_for("location.pathname === '/files' && !document.querySelector('.note').hidden")
        assert example.files() == []
        assert page.errors == []
