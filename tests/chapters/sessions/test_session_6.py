from pathlib import Path

from tests.support.sessions import run_sessions


def test_the_sessions_print_what_the_chapter_shows(tmp_path: Path) -> None:
    run_sessions("6_event_bus", tmp_path)
