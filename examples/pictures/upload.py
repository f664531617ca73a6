"""Reads a multipart body with the fields `name` and `file`, piece by piece, so that no upload fills the memory."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import IO

from aiohttp import BodyPartReader, hdrs, web

from common.http.frame import BROKEN_BODY

from .formats import ACCEPTED, HEAD_BYTES, format_of

BODY_SECONDS = 120.0  # for the whole body
CHUNK_BYTES = 1 << 16
OTHER_BYTES = 10_000  # of a body besides its file
NAME_LENGTH = 200  # characters; longer names are cut


@dataclass
class Form:
    """What the body had. The file has the position 0, and is deleted when the form is closed."""

    name: str | None = None
    file: IO[bytes] | None = None
    bytes: int = 0
    format: str = ""
    """JPEG, PNG, GIF or WEBP."""


@asynccontextmanager
async def read_form(request: web.Request, max_bytes: int) -> AsyncIterator[Form]:
    """Read the form; `max_bytes` limits its file.

    Raises HTTPBadRequest, HTTPRequestTimeout, HTTPRequestEntityTooLarge, and HTTPUnsupportedMediaType with the reason.
    """
    if request.content_type != "multipart/form-data":
        raise web.HTTPUnsupportedMediaType(text="expected multipart/form-data with the fields `name` and `file`")
    if (request.content_length or 0) > max_bytes + OTHER_BYTES:
        raise _too_large(max_bytes)
    with tempfile.TemporaryFile() as file:  # it has no name, so it is gone when the process is killed
        form = Form()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                await _read_parts(request, form, file, max_bytes)
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"the body did not arrive within {BODY_SECONDS:g} s") from None
        except (ValueError, RuntimeError, AssertionError, *BROKEN_BODY):
            raise web.HTTPBadRequest(text="the body is not a valid form") from None
        yield form


async def _read_parts(request: web.Request, form: Form, file: IO[bytes], max_bytes: int) -> None:
    own_name = None
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            raise web.HTTPBadRequest(text="a field of the form is a form of its own")
        if part.name == "name":
            form.name = clean_name((await _read_small(part)).decode("utf-8", "replace"))
        elif part.name == "file" and form.file is None:
            own_name = clean_name(_last_part(part.filename or ""))
            form.bytes, form.format = await _read_picture(part, file, max_bytes)
            form.file = file if form.bytes else None  # a browser sends an empty file if none was chosen
        else:
            raise web.HTTPBadRequest(text="the form has the fields `name` and `file`, each at most once")
    form.name = form.name or own_name
    file.seek(0)


async def _read_small(part: BodyPartReader) -> bytes:
    data = b""
    while chunk := await part.read_chunk(CHUNK_BYTES):
        data += chunk
        if len(data) > OTHER_BYTES:
            raise web.HTTPRequestEntityTooLarge(OTHER_BYTES, len(data), text="the name is too long")
    return data


async def _read_picture(part: BodyPartReader, file: IO[bytes], max_bytes: int) -> tuple[int, str]:
    """Write the picture into the file; returns its size and its format."""
    size, head = 0, b""
    while chunk := await part.read_chunk(CHUNK_BYTES):
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        if len(head) < HEAD_BYTES:
            head += chunk[:HEAD_BYTES]
        file.write(chunk)
    kind = format_of(head)
    if size and kind is None:
        raise web.HTTPUnsupportedMediaType(text=f"the file is not a picture; {ACCEPTED} are accepted")
    return size, kind or ""


def clean_name(text: str) -> str | None:
    """Printable, in one line, and not longer than NAME_LENGTH; None if nothing is left."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:NAME_LENGTH] or None


def _last_part(filename: str) -> str:
    return PurePosixPath(PureWindowsPath(filename).name).name


def _too_large(max_bytes: int) -> web.HTTPException:
    return web.HTTPRequestEntityTooLarge(
        max_bytes, max_bytes + 1, text=f"the file is too large; at most {max_bytes:,} bytes are accepted",
        headers={hdrs.CONNECTION: "close"},
    )  # fmt: skip
