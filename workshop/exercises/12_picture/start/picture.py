"""Given: pictures, small enough to read. Your file is thumbnail.py.

A picture is a PGM file (https://netpbm.sourceforge.net/doc/pgm.html), the plain format: a header and rows of numbers. A
thumbnail has every second number of every second row.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

FOLDER = Path(os.environ.get("PICTURES", "pictures"))
ORIGINALS, THUMBNAILS = FOLDER / "originals", FOLDER / "thumbnails"
ROW_SECONDS = 0.02  # a large picture takes a while


class NotAPicture(Exception):
    """Another attempt would fail too."""


async def scaled(name: str) -> AsyncIterator[str]:
    """The lines of the thumbnail, one after the other, as they are computed. Raises NotAPicture, at once or midway."""
    text = (ORIGINALS / name).read_text()  # a small file
    if not text.startswith("P2\n"):
        raise NotAPicture(f"{name} does not begin with P2")
    _, width, height, most, *numbers = text.split()
    yield f"P2\n{int(width) // 2} {int(height) // 2}\n{most}\n"
    for row in range(0, int(height), 2):
        await asyncio.sleep(ROW_SECONDS)
        here = numbers[row * int(width) : (row + 1) * int(width) : 2]
        if len(here) < int(width) // 2:
            raise NotAPicture(f"{name} ends at row {row}")
        print(f"{name}: row {row}", flush=True)
        yield " ".join(here) + "\n"
