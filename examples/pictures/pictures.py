"""The rows: one for each picture. Each method is one transaction. All may raise one of `database.DOWN`."""

import datetime
import secrets
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from .database import Pool
from .outbox import ORDER_A_JOB
from .store import LARGE, THUMBNAIL

MOST = 100  # pictures in one list


@dataclass(frozen=True)
class Picture:
    """One row. The columns are explained in migrations/0001_pictures.sql."""

    id: UUID
    upload: UUID
    name: str
    state: str
    reason: str
    tries: int
    format: str
    bytes: int
    width: int | None
    height: int | None
    created_at: datetime.datetime
    changed_at: datetime.datetime

    def to_dict(self) -> dict[str, Any]:
        """What clients get. The addresses of the versions are null until they are ready."""
        ready = self.state == "ready"
        address = f"/files/{self.id}"
        return {
            "id": str(self.id),
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "format": self.format,
            "bytes": self.bytes,
            "width": self.width,
            "height": self.height,
            "created_at": self.created_at.isoformat(timespec="seconds"),
            "url": address,
            "thumbnail": f"{address}/{THUMBNAIL}?upload={self.upload}" if ready else None,
            "large": f"{address}/{LARGE}?upload={self.upload}" if ready else None,
        }


@dataclass(frozen=True)
class Upload:
    """An original that is in the store: the names of its folder, and what its bytes say."""

    picture: UUID
    id: UUID
    format: str
    bytes: int


def new_picture_id() -> UUID:
    """A UUIDv7 (RFC 9562): it begins with the time in ms, so ids sort by age."""
    value = time.time_ns() // 1_000_000 << 80 | 7 << 76 | secrets.randbits(76)
    return UUID(int=value & ~(3 << 62) | 2 << 62)


class Pictures:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def check(self) -> None:
        """Raises one of DOWN if the database cannot be reached."""
        await self._pool.execute("SELECT 1")

    async def add(self, upload: Upload, name: str) -> Picture:
        """The row and its job, both or none."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                "INSERT INTO pictures (id, upload, name, format, bytes) VALUES ($1, $2, $3, $4, $5) RETURNING *",
                *(upload.picture, upload.id, name, upload.format, upload.bytes),
            )
            await connection.execute(ORDER_A_JOB, upload.picture, upload.id)
        return _picture(row)

    async def replace(self, upload: Upload, name: str | None) -> Picture | None:
        """Another original for this picture, and its job. None: there is no such picture."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                "UPDATE pictures SET upload = $2, name = COALESCE($3, name), format = $4, bytes = $5, "
                "state = 'uploaded', reason = '', tries = 0, width = NULL, height = NULL, changed_at = now() "
                "WHERE id = $1 RETURNING *",
                *(upload.picture, upload.id, name, upload.format, upload.bytes),
            )
            if row is None:
                return None
            await connection.execute(ORDER_A_JOB, upload.picture, upload.id)
        return _picture(row)

    async def rename(self, picture: UUID, name: str) -> Picture | None:
        row = await self._pool.fetchrow("UPDATE pictures SET name = $2 WHERE id = $1 RETURNING *", picture, name)
        return _picture(row) if row else None

    async def delete(self, picture: UUID) -> bool:
        """False: there is no such picture. Its outbox row goes with it."""
        return bool(await self._pool.fetchval("DELETE FROM pictures WHERE id = $1 RETURNING true", picture))

    async def get(self, picture: UUID) -> Picture | None:
        row = await self._pool.fetchrow("SELECT * FROM pictures WHERE id = $1", picture)
        return _picture(row) if row else None

    async def newest(self, before: UUID | None = None, count: int = MOST) -> list[Picture]:
        """The newest first; with `before`, only those older than that one."""
        rows = await self._pool.fetch(
            "SELECT * FROM pictures WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2", before, count
        )
        return [_picture(row) for row in rows]

    async def begin(self, picture: UUID, upload: UUID) -> Picture | None:
        """A worker begins. None: it was deleted or replaced, or is done already."""
        row = await self._pool.fetchrow(
            "UPDATE pictures SET state = 'being resized', tries = tries + 1, changed_at = now() "
            "WHERE id = $1 AND upload = $2 AND state IN ('uploaded', 'being resized') RETURNING *",
            *(picture, upload),
        )
        return _picture(row) if row else None

    async def give_back(self, picture: UUID, upload: UUID) -> None:
        """Do not count the try that `begin` has counted."""
        await self._pool.execute(
            "UPDATE pictures SET tries = tries - 1 WHERE id = $1 AND upload = $2 AND tries > 0", picture, upload
        )

    async def finish(self, picture: UUID, upload: UUID, width: int, height: int) -> bool:
        """False: it was deleted or replaced in the meantime."""
        done = await self._pool.fetchval(
            "UPDATE pictures SET state = 'ready', reason = '', width = $3, height = $4, changed_at = now() "
            "WHERE id = $1 AND upload = $2 RETURNING true",
            *(picture, upload, width, height),
        )
        return bool(done)

    async def fail(self, picture: UUID, upload: UUID, reason: str) -> None:
        await self._pool.execute(
            "UPDATE pictures SET state = 'failed', reason = $3, changed_at = now() WHERE id = $1 AND upload = $2",
            *(picture, upload, reason),
        )

    async def order_stale(self, seconds: float) -> int:
        """Order a job for each picture that waits for a worker longer than this; returns how many."""
        rows = await self._pool.fetch(
            "WITH stale AS (UPDATE pictures SET changed_at = now() WHERE state IN ('uploaded', 'being resized') "
            "AND changed_at < now() - $1::interval "
            "AND NOT EXISTS (SELECT FROM outbox WHERE outbox.upload = pictures.upload) RETURNING id, upload) "
            "INSERT INTO outbox (picture, upload) SELECT id, upload FROM stale RETURNING id",
            datetime.timedelta(seconds=seconds),
        )
        return len(rows)

    async def order_again(self, picture: UUID, upload: UUID) -> None:
        """A ready picture has lost a file: it is resized again."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                "UPDATE pictures SET state = 'uploaded', tries = 0, changed_at = now() "
                "WHERE id = $1 AND upload = $2 AND state = 'ready' RETURNING id",
                *(picture, upload),
            )
            if row is not None:
                await connection.execute(ORDER_A_JOB, picture, upload)

    async def current(self, uploads: set[UUID]) -> set[UUID]:
        """Which of these uploads belong to a picture."""
        rows = await self._pool.fetch("SELECT upload FROM pictures WHERE upload = ANY($1)", list(uploads))
        return {row["upload"] for row in rows}


def _picture(row: asyncpg.Record | None) -> Picture:
    assert row is not None
    return Picture(**row)
