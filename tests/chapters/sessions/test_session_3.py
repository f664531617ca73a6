from pathlib import Path

import pytest

from tests.support.sessions import run_sessions


@pytest.mark.timeout(180)
def test_the_sessions_print_what_the_chapter_shows(tmp_path: Path) -> None:
    run_sessions("3_local_messages", tmp_path)
