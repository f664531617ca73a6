"""The results as a page, as CSV and as JSON."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import jinja2

from .store import Row


def write_reports(rows: Sequence[Row], start: str, folder: Path) -> list[Path]:
    """Write links.html, links.csv and links.json into the folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    page, table, data = (folder / f"links.{kind}" for kind in ("html", "csv", "json"))
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    page.write_text(templates.get_template("report.html").render(rows=rows, start=start), encoding="utf-8")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows([_safe(row.url), *row[1:3], _safe(row.reason), row.milliseconds, _pages(row)] for row in rows)
    data.write_text(json.dumps([row._asdict() for row in rows], indent=2), encoding="utf-8")
    return [page, table, data]


def _pages(row: Row) -> str:
    return _safe(" ".join(row.pages))


def _safe(text: str) -> str:
    """A spreadsheet treats a cell that begins with one of these characters as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
