"""The files, in a folder or in S3, by the URL of the store.

    PICTURE/UPLOAD/original         as it was uploaded; no client gets it back: it may hold a place, or a script
    PICTURE/UPLOAD/thumbnail.webp   at most 320 pixels wide and high
    PICTURE/UPLOAD/large.webp       at most 1600 pixels

An upload's folder is written once. A picture that is replaced gets another folder, so a file never changes, and a job
that runs twice writes the same bytes to the same keys.
"""

import datetime
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple
from uuid import UUID

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

ORIGINAL, THUMBNAIL, LARGE = "original", "thumbnail.webp", "large.webp"
RETRY_SECONDS = 5  # obstore itself repeats a request of S3 that failed, up to this time
CHUNK = 1000  # files listed at a time


class StoreDown(Exception):
    """The store did not answer, or refused. The reason is one line."""


class Missing(Exception):
    """There is no such file."""


class Found(NamedTuple):
    """A file in the store."""

    key: str
    modified: datetime.datetime


def key_of(picture: UUID, upload: UUID, name: str) -> str:
    return f"{picture}/{upload}/{name}"


class Store:
    """Its methods raise StoreDown."""

    def __init__(self, url: str) -> None:
        """`file:///folder`, or `s3://bucket/prefix` with the variables AWS_… that obstore reads."""
        if url.startswith("file:"):
            self._store = from_url(url, mkdir=True, automatic_cleanup=True)
            return
        seconds = datetime.timedelta(seconds=RETRY_SECONDS)
        self._store = from_url(url, retry_config={"max_retries": 3, "retry_timeout": seconds})

    async def put(self, key: str, data: bytes | IO[bytes]) -> None:
        """All of the file, or nothing of it."""
        with _described():
            await obstore.put_async(self._store, key, data, use_multipart=False)

    async def get(self, key: str) -> bytes:
        """Raises Missing."""
        with _described():
            try:
                return bytes(await (await obstore.get_async(self._store, key)).bytes_async())
            except FileNotFoundError:
                raise Missing(key) from None

    async def names(self, picture: UUID, upload: UUID) -> set[str]:
        """Which files this upload has."""
        with _described():
            found = await obstore.list(self._store, f"{picture}/{upload}").collect_async()
            return {str(file["path"]).rpartition("/")[2] for file in found}

    async def delete(self, picture: UUID, upload: UUID | None = None) -> None:
        """Delete all files of the upload, or of the picture. Those that another process has deleted are no error."""
        with _described():
            prefix = f"{picture}/{upload}" if upload else f"{picture}"
            for file in await obstore.list(self._store, prefix).collect_async():
                await self.delete_file(str(file["path"]))

    async def delete_file(self, key: str) -> None:
        with _described(), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)

    async def files(self) -> AsyncIterator[list[Found]]:
        """All files, some at a time."""
        with _described():
            async for chunk in obstore.list(self._store, chunk_size=CHUNK):
                yield [Found(str(file["path"]), file["last_modified"]) for file in chunk]

    def half_written(self) -> list[Path]:
        """What a killed process has left of a file in a folder: obstore writes `NAME#1` and renames it. S3 has none."""
        if not isinstance(self._store, LocalStore) or self._store.prefix is None:
            return []
        return list(Path(self._store.prefix).glob("*/*/*#*"))


@contextmanager
def _described() -> Iterator[None]:
    """Turns obstore's errors, which have many lines, into a StoreDown with one."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise StoreDown(str(error).partition("\n")[0]) from None
