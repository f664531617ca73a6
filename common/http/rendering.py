"""Code and Markdown as HTML.

The Markdown comes from this repository, so its HTML is not escaped; the page's Content-Security-Policy blocks scripts
in any case.
"""

import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.util import ClassNotFound

from common.http.sequence_diagram import sequence_svg

_CONTENTS_FROM = 4  # a page with fewer headings than this needs no table of contents


def code(text: str, name: str) -> str:
    """A file as HTML with syntax colours, and with line numbers that you can link to: `#L-7`."""
    try:
        lexer = get_lexer_for_filename(name)
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    formatter = HtmlFormatter(cssclass="code", linenos="inline", lineanchors="L", anchorlinenos=True)
    return str(highlight(text, lexer, formatter))


def markdown(text: str, link: Callable[[str], str]) -> tuple[str, Sequence[tuple[str, str]]]:
    """Markdown as HTML, and its headings as (anchor, heading). `link` returns the address that a target becomes."""
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
                    child.attrSet(attribute, link(str(target)))
    html = str(parser.renderer.render(tokens, parser.options, {}))
    return html, contents if len(contents) >= _CONTENTS_FROM else ()


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives to this heading."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def _fence(_: RendererHTML, tokens: Sequence[Token], place: int, *__: Any) -> str:
    token = tokens[place]
    if token.info == "mermaid":
        return f'<figure class="scroll">{sequence_svg(token.content)}</figure>\n'
    try:
        lexer = get_lexer_by_name(token.info or "text")
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    return str(highlight(token.content, lexer, HtmlFormatter(cssclass=f"code {escape(token.info)}")))
