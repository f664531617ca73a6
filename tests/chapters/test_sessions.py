"""The convention of the chapters' sessions; `sessions/` runs them, a process for each chapter."""

import re

import pytest

from tests.conftest import STRATEGIES
from tests.support.programs import ROOT
from tests.support.sessions import NOT_RUN, blocks_of, matches

NOT_YET: set[str] = set()
"""Chapters whose sessions are still to be written by the convention."""


@pytest.mark.parametrize("chapter", ["", *STRATEGIES])
def test_every_session_can_be_pasted(chapter: str) -> None:
    text = (ROOT / chapter / "README.md").read_text()
    assert ("```console" in text) is (chapter in NOT_YET)
    for block in blocks_of(ROOT / chapter / "README.md"):
        if block.language == "sh":
            assert not re.search(r"(?m)^[$>] ", block.text), block.text
            assert not re.search(r"kill (-\w+ )*\d", block.text), f"a pid: {block.text}"
        assert block.not_run is None or block.not_run in NOT_RUN, block.not_run
        assert not block.note or block.not_run or block.within or block.note == "another terminal", block.note


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\n", "a\nb\n", False),
        ("a\n…\n", "a\nb\nc\n", True),
        ("…\nc\n", "a\nb\nc\n", True),
        ('{\n  "id": "…",\n', '{\n  "id": "x",\n', True),
        ("[worker @ 1] 07:22:21.132 up\n", "[worker @ 4711] 23:59:59.999 up\n", True),
        ("202 0.001372\n", "202 0.2\n", False),
        ("202 0.001372\n", "503 0.001372\n", False),
        ('"sent": 8\n', '"sent": 9\n', False),
        ("", "curl: (7) Failed to connect\n", False),
    ],
)
def test_what_matches(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same
