"""The repository's files as pages: a chapter's Markdown, the code that it links to, a folder's contents.

Only files of the repository are shown: those that git tracks, or, in a copy without `.git`, files with the usual
suffixes. Hidden files are never shown: `.env` may contain a password. The Markdown comes from this repository, so its
HTML is not escaped; the page's Content-Security-Policy blocks scripts in any case.
"""

import posixpath
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.util import ClassNotFound

from common.http.sequence_diagram import sequence_svg

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = re.compile(r"[1-9]_\w+|asynckit|common|docs|eventlog|examples|lab|resque|results|tests")
KINDS = {".css", ".html", ".js", ".json", ".lua", ".md", ".patch", ".png", ".py", ".svg", ".toml"}
PLAIN = {".env.example", "LICENSE", "Makefile"}  # files without a suffix that are shown

# In a copy without .git: the files in the top folder, and the suffixes of code and text (not of data).
TOP = PLAIN | {"CHANGELOG.md", "CONTRIBUTING.md", "GLOSSARY.md", "README.md", "SCALING.md", "pyproject.toml"}
CODE = {".css", ".html", ".js", ".lua", ".md", ".patch", ".png", ".py", ".svg"}

_RESULTS = re.compile(r"results/(bench|compare|compare_steps|faults|steps)\.json")
_HIDDEN = re.compile(r"[._].*|node_modules|partial")
_CONTENTS_FROM = 4  # a page with fewer headings than this needs no table of contents


class Page(NamedTuple):
    title: str
    html: str
    contents: Sequence[tuple[str, str]] = ()
    """The headings of a chapter: (anchor, heading)."""


def find(name: str) -> Path | None:
    """The file or folder with this path in the repository; None if it does not exist or is not to be shown."""
    path = ROOT / name
    parts = Path(name).parts
    with suppress(OSError):  # for example a name that is too long
        if not parts or ".." in parts or not path.exists() or path.resolve() != path:  # a symbolic link may lead out
            return None
        return _visible(name, path, parts)
    return None


def _visible(name: str, path: Path, parts: Sequence[str]) -> Path | None:
    if path.is_dir():
        return path if FOLDERS.fullmatch(parts[0]) and not any(map(_HIDDEN.fullmatch, parts)) else None
    if not _belongs(name, path.suffix, len(parts)):
        return None
    if path.name.startswith(".") or path.suffix not in KINDS:
        return path if name in PLAIN else None
    return path if len(parts) == 1 or find(str(Path(*parts[:-1]))) else None


def _belongs(name: str, suffix: str, depth: int) -> bool:
    if (tracked := _tracked(ROOT)) is not None:
        return name in tracked
    return name in TOP if depth == 1 else suffix in CODE or bool(_RESULTS.fullmatch(name))


@cache
def _tracked(root: Path) -> frozenset[str] | None:
    """The files that git tracked at the first call; None without git."""
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "ls-files", "-z"]
        listed = subprocess.run(command, capture_output=True, check=True, timeout=5).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return frozenset(listed.decode(errors="surrogateescape").split("\0"))


def page_of(path: Path) -> Page:
    """The page for a path that `find` has returned."""
    if path.is_dir():
        return _folder(path)
    return _file(path, path.stat().st_mtime_ns)


def address_of(name: str) -> str:
    return f"/source/{name}"


def _folder(path: Path) -> Page:
    name = str(path.relative_to(ROOT))
    entries = [entry for entry in sorted(path.iterdir()) if find(f"{name}/{entry.name}")]
    items = (f'<li><a href="{address_of(f"{name}/{entry.name}")}">{escape(entry.name)}</a></li>' for entry in entries)
    return Page(f"{name}/", f"<h1>{escape(name)}/</h1><ul>{''.join(items)}</ul>")


@lru_cache(maxsize=64)
def _file(path: Path, _: int) -> Page:
    """The page of a file. The second argument is its modification time, so that the cache notices a change."""
    name, text = str(path.relative_to(ROOT)), path.read_text()
    if path.suffix != ".md":
        return Page(name, f"<h1>{escape(name)}</h1>{_code(text, name)}")
    title = re.match(r"# (.*)", text)
    html, contents = _markdown(text, posixpath.dirname(name))
    return Page(title[1] if title else name, html, contents)


def neighbours(path: Path) -> tuple[Path | None, Path | None]:
    """The chapters before and after this one; None where there is none, and for a file that is not a chapter."""
    chapters = sorted(ROOT.glob("[1-9]_*/README.md"))
    if path not in chapters:
        return None, None
    place = chapters.index(path)
    return (chapters[place - 1] if place else None), (chapters[place + 1] if place + 1 < len(chapters) else None)


def _code(text: str, name: str) -> str:
    """A file as HTML with syntax colours, and with line numbers that you can link to: `#L-7`."""
    try:
        lexer = get_lexer_for_filename(name)
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    formatter = HtmlFormatter(cssclass="code", linenos="inline", lineanchors="L", anchorlinenos=True)
    return str(highlight(text, lexer, formatter))


def _markdown(text: str, folder: str) -> tuple[str, Sequence[tuple[str, str]]]:
    """Markdown as HTML, and its headings. Relative links are changed to point to our own pages."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = parser.parse(text)
    contents = []
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = tokens[place + 1].content
            token.attrSet("id", _anchor(heading))
            if token.tag == "h2":
                contents.append((_anchor(heading), heading.replace("`", "")))
        for child in token.children or []:
            for attribute in ("href", "src"):
                if target := child.attrGet(attribute):
                    child.attrSet(attribute, _target(str(target), folder))
    html = str(parser.renderer.render(tokens, parser.options, {}))
    return html, contents if len(contents) >= _CONTENTS_FROM else ()


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives to this heading."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def _target(target: str, folder: str) -> str:
    if "://" in target or target.startswith("#"):
        return target
    path, mark, anchor = target.partition("#")
    return address_of(posixpath.normpath(posixpath.join(folder, path))) + mark + anchor


def _fence(_: RendererHTML, tokens: Sequence[Token], place: int, *__: Any) -> str:
    token = tokens[place]
    if token.info == "mermaid":
        return f'<figure class="scroll">{sequence_svg(token.content)}</figure>\n'
    try:
        lexer = get_lexer_by_name(token.info or "text")
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    return str(highlight(token.content, lexer, HtmlFormatter(cssclass=f"code {escape(token.info)}")))
