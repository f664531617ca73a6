"""Files of the repository as pages, and what is none of a reader's business."""

import subprocess
from pathlib import Path

import pytest

from common import sources
from common.sources import find, page_of
from tests.programs import ROOT


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of this test's own."""
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    (tmp_path / "common").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "1_foreground",
        "5_remote_queue/resque/scripts/claim.lua",
        "common/inbox/__init__.py",
        ".env.example",
    ],
)
def test_what_belongs_to_the_workshop_is_found(name: str) -> None:
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
def test_what_does_not_is_not(name: str) -> None:
    assert find(name) is None


def test_secrets_and_links_to_elsewhere_are_not_found(repository: Path) -> None:
    (repository / ".env").write_text("SMTP_URL=smtp://jo:secret@mail.example.com")
    (repository / "common" / ".hidden.py").write_text("")
    (repository / "common" / "elsewhere.py").symlink_to("/etc/passwd")
    (repository / "common" / "__pycache__").mkdir()
    (repository / "common" / "seen.py").write_text("")
    for name in (".env", "common/.hidden.py", "common/elsewhere.py", "common/__pycache__"):
        assert find(name) is None
    assert page_of(repository / "common").html.count("<li>") == 1


def test_code_is_text(repository: Path) -> None:
    (repository / "common" / "x.py").write_text("<script>alert(1)</script> & more")
    title, html = page_of(repository / "common" / "x.py")
    assert title == "common/x.py"
    assert "<code>&lt;script&gt;alert(1)&lt;/script&gt; &amp; more</code>" in html


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


def test_markdown_is_a_page_with_links_of_our_own(repository: Path) -> None:
    (repository / "common" / "README.md").write_text(CHAPTER)
    title, html = page_of(repository / "common" / "README.md")
    assert title == "7 · A chapter"
    assert '<h1 id="7--a-chapter">7 · A chapter</h1>' in html
    for address in ("/source/common/x.py", "/source/README.md#what-is-where", "#a-chapter", "https://example.com/"):
        assert f'<a href="{address}">' in html
    assert '<div class="scroll"><table>' in html
    steps = html.partition('<figure class="steps"><ol>')[2].partition("</ol>")[0].split("</li>")
    assert steps[:4] == [
        "<li><b>Caller → Web &lt;server&gt;</b> GET /",
        "<li><b>Web &lt;server&gt;</b> think",
        "<li><i>the caller waits</i>",
        "<li><i>twice:</i>",
    ]
    assert steps[4] == "<li><b>Web &lt;server&gt; → Caller</b> 200"


def test_data_that_is_not_the_repositorys_is_not_found(repository: Path) -> None:
    """A copy without .git: by kind of file."""
    for name in ("secrets.json", "notes.md", "key.toml", "common/secrets.json", "common/key.toml", "common/.env"):
        (repository / name).write_text("secret")
        assert find(name) is None


def test_with_git_only_what_it_tracks_is_found(repository: Path) -> None:
    for name in ("README.md", "common/seen.py", "common/untracked.py", "notes.md", "secrets.json"):
        (repository / name).write_text("")
    for command in (["init", "-q"], ["add", "README.md", "common/seen.py"]):
        subprocess.run(["git", "-C", str(repository), *command], check=True)
    assert find("README.md")
    assert find("common/seen.py")
    for name in ("common/untracked.py", "notes.md", "secrets.json"):
        assert find(name) is None
    assert page_of(repository / "common").html.count("<li>") == 1
