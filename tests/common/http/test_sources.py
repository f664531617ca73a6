"""Files of the repository as pages, and the files that are not shown."""

import re
import subprocess
from pathlib import Path

import pytest

from common.http import sources
from common.http.sequence_diagram import sequence_svg
from common.http.sources import find, neighbours, page_of
from lab.chromium import chromium, find_browser
from tests.support.programs import ROOT

FIGURE = re.compile(r"```mermaid\n(sequenceDiagram.*?)```", re.DOTALL)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of this test."""
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    (tmp_path / "common").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "1_foreground",
        "resque/scripts/claim.lua",
        "common/services/inbox/__init__.py",
        ".env.example",
        "docs/page.png",
        "6_event_bus/patches/commit_first.patch",
    ],
)
def test_files_of_the_repository_are_found(name: str) -> None:
    assert find(name) == ROOT / name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "/",
        ".git",
        ".git/config",
        ".venv/pyvenv.cfg",
        "common/../README.md",
        "/etc/passwd",
        "common/nothing.py",
        "common/" + "a" * 5000,
        "common/\0.py",
        "common/\udc80.py",
    ],
)
def test_other_files_are_not_found(name: str) -> None:
    assert find(name) is None


def test_secrets_and_symbolic_links_are_not_found(repository: Path) -> None:
    (repository / ".env").write_text("SMTP_URL=smtp://jo:secret@mail.example.com")
    (repository / "common" / ".hidden.py").write_text("")
    (repository / "common" / "elsewhere.py").symlink_to("/etc/passwd")
    (repository / "common" / "__pycache__").mkdir()
    (repository / "common" / "seen.py").write_text("")
    for name in (".env", "common/.hidden.py", "common/elsewhere.py", "common/__pycache__"):
        assert find(name) is None
    assert page_of(repository / "common").html.count("<li>") == 1


def test_code_is_escaped(repository: Path) -> None:
    (repository / "common" / "x.py").write_text("<script>alert(1)</script> & more")
    page = page_of(repository / "common" / "x.py")
    assert page.title == "common/x.py"
    text = re.sub(r"<[^>]*>", "", page.html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert "<script" not in page.html


CHAPTER = """# 7 · A chapter

[code](x.py), [up](../README.md#what-is-where), [here](#a-chapter), [there](https://example.com/)

| a | b |
|---|---|
| `c|d` | e |

```mermaid
sequenceDiagram
    participant C as Caller
    participant W as Web <server>
    C->>W: GET /
    W->>W: think
    Note over C,W: the caller waits
    loop twice
        W-->>C: 200
    end
```
"""


def test_markdown_becomes_a_page_whose_links_lead_to_our_own_pages(repository: Path) -> None:
    (repository / "common" / "README.md").write_text(CHAPTER)
    title, html, contents = page_of(repository / "common" / "README.md")
    assert title == "7 · A chapter"
    assert '<h1 id="7--a-chapter">7 · A chapter</h1>' in html
    for address in ("/source/common/x.py", "/source/README.md#what-is-where", "#a-chapter", "https://example.com/"):
        assert f'<a href="{address}">' in html
    assert '<div class="scroll"><table>' in html
    assert contents == (), "a short page needs no table of contents"
    svg = html.partition('<figure class="scroll">')[2].partition("</figure>")[0]
    words = re.findall("<text[^>]*>([^<]*)</text>", svg)
    assert words == ["Caller", "Web &lt;server&gt;", "loop: twice", "GET /", "think", "the caller waits", "200"]


def test_a_chapter_has_contents_and_neighbours(repository: Path) -> None:
    for name in ("1_one", "2_two", "3_three"):
        (repository / name).mkdir()
        headings = "".join(f"\n## Part {part} of `a_b`\n" for part in range(4))
        (repository / name / "README.md").write_text(f"# {name}\n{headings}")
    first, second, third = (repository / name / "README.md" for name in ("1_one", "2_two", "3_three"))
    assert page_of(second).contents[0] == ("part-0-of-a_b", "Part 0 of a_b")
    assert (neighbours(first), neighbours(second)) == ((None, second), (first, third))
    assert neighbours(repository / "common") == (None, None)


def test_lines_of_code_can_be_linked_to() -> None:
    html = page_of(ROOT / "1_foreground" / "server.py").html
    assert 'id="L-1"' in html or 'name="L-1"' in html
    assert '<span class="k">async</span>' in html
    assert 'href="#L-1"' in html


@pytest.mark.parametrize("path", sorted(ROOT.glob("[1-9]_*/README.md")), ids=lambda path: path.parent.name)
def test_the_figure_of_every_chapter_can_be_drawn(path: Path) -> None:
    svg = page_of(path).html.partition("<svg")[2].partition("</svg>")[0]
    diagram = path.read_text().partition("```mermaid")[2].partition("```")[0]
    assert svg.count('class="arrow') == diagram.count(">>"), "each message is an arrow"
    assert svg.count('class="name"') == diagram.count("participant ")


@pytest.mark.parametrize("text", ["", "sequenceDiagram\nalt x", "participant A as B\nA->>C: unknown lane"])
def test_an_unsupported_diagram_raises_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  from the parser, or from the lookup of a lane
        sequence_svg(text)


def test_in_a_copy_without_git_data_files_are_not_found(repository: Path) -> None:
    """The suffix decides."""
    for name in ("secrets.json", "notes.md", "key.toml", "common/secrets.json", "common/key.toml", "common/.env"):
        (repository / name).write_text("secret")
        assert find(name) is None


def test_with_git_only_tracked_files_are_found(repository: Path) -> None:
    for name in ("README.md", "common/seen.py", "common/untracked.py", "notes.md", "secrets.json"):
        (repository / name).write_text("")
    for command in (["init", "-q"], ["add", "README.md", "common/seen.py"]):
        subprocess.run(["git", "-C", str(repository), *command], check=True)
    assert find("README.md")
    assert find("common/seen.py")
    for name in ("common/untracked.py", "notes.md", "secrets.json"):
        assert find(name) is None
    assert page_of(repository / "common").html.count("<li>") == 1


@pytest.mark.skipif(find_browser() is None, reason="there is no Chromium")
async def test_a_figure_fits_into_a_window_of_800_px_and_keeps_its_size_on_a_phone(tmp_path: Path) -> None:
    """The six figures of the READMEs. In a narrow window they scroll, because their text would be too small."""
    figures = [FIGURE.search((folder / "README.md").read_text()) for folder in sorted(ROOT.glob("[1-6]_*"))]
    drawn = "".join(f'<figure class="scroll">{sequence_svg(found[1])}</figure>' for found in figures if found)
    style = (ROOT / "common/http/pages/assets/source.css").read_text()
    (tmp_path / "page.html").write_text(f"<!doctype html><style>{style}</style><article>{drawn}</article>")
    sizes = "[...document.querySelectorAll('figure')].map(it => [it.scrollWidth, it.clientWidth])"
    async with chromium(str(find_browser()), tmp_path / "profile") as page:
        await page.open(f"file://{tmp_path}/page.html", 800)
        await page.wait_for("document.querySelectorAll('.sequence').length === 6 && document.readyState === 'complete'")
        assert all(content <= width for content, width in await page.evaluate(sizes))
        await page.resize(360, 720)
        assert all(content > width for content, width in await page.evaluate(sizes))
