"""What the READMEs say was measured is what the saved results say."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import tables
from lab.tables import BLOCKS, NoSuchBlock, readmes, render


@pytest.mark.parametrize("path", readmes(), ids=lambda path: path.parent.name)
def test_the_measured_blocks_are_what_the_results_say(path: Path) -> None:
    text = path.read_text()
    assert render(text) == text, "make tables"


def test_every_block_is_in_a_readme() -> None:
    texts = "".join(path.read_text() for path in readmes())
    assert [name for name in BLOCKS if f"<!-- measured: {name} -->\n" not in texts] == []
    assert texts.count("<!-- measured: ") == texts.count("<!-- end -->") == len(BLOCKS)


def test_what_somebody_has_typed_into_a_block_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def block() -> Iterator[str]:
        yield "| 7 |"

    monkeypatch.setitem(tables.BLOCKS, "seven", block)
    text = "a\n<!-- measured: seven -->\n| 8 |\n<!-- end -->\nb\n"
    assert render(text) == text.replace("8", "7")
    assert render(render(text)) == render(text)


def test_a_block_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(NoSuchBlock, match="eight"):
        render("<!-- measured: eight -->\n<!-- end -->\n")
