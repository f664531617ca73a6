"""The sweep repairs what kills and outages have left. Each worker runs it; two at the same time do no harm.

what is left                                what has happened                                 what the sweep does
a picture without a version and a job       Redis lost the job, or it has failed for good     orders a job
a file without a row                        a kill between the writes of a file and its row,  deletes the file when
                                            or between their deletions                        it is old enough
a ready picture without one of its files    the store has lost it                             orders a job
"""

import asyncio
import datetime
import logging
import time
from uuid import UUID

from .database import DOWN, describe
from .pictures import Pictures
from .settings import PictureSettings
from .store import LARGE, ORIGINAL, THUMBNAIL, Store, StoreDown

LOOKS_PER_STALE = 4  # how often to look for stale pictures while one becomes stale
MOST_SECONDS = 30.0

log = logging.getLogger(__name__)


class Sweep:
    def __init__(self, pictures: Pictures, store: Store, settings: PictureSettings) -> None:
        self._pictures = pictures
        self._store = store
        self._settings = settings

    async def run(self) -> None:
        """Until it is cancelled."""
        pause = min(self._settings.stale_seconds / LOOKS_PER_STALE, MOST_SECONDS, self._settings.reconcile_seconds)
        reconcile_at = 0.0
        while True:
            try:
                await self.order_stale()
                if time.monotonic() >= reconcile_at:
                    await self.reconcile()
                    reconcile_at = time.monotonic() + self._settings.reconcile_seconds
            except DOWN as error:
                log.warning("the sweep waits: %s", describe(error))
            except StoreDown as error:
                log.warning("the sweep waits: the store: %s", error)
            await asyncio.sleep(pause)

    async def order_stale(self) -> None:
        """In a long queue, a picture may get a second job before its first one runs; that job finds nothing to do."""
        if count := await self._pictures.order_stale(self._settings.stale_seconds):
            log.warning("%d pictures have waited too long: another job for each", count)

    async def reconcile(self) -> None:
        """Compare the files with the rows, then the rows with the files."""
        await self._delete_orphans()
        await self._order_incomplete()

    async def _delete_orphans(self) -> None:
        age = datetime.timedelta(seconds=self._settings.orphan_seconds)
        oldest = datetime.datetime.now(datetime.UTC) - age
        async for files in self._store.files():
            old = {file.key: _upload_of(file.key) for file in files if file.modified < oldest}
            current = await self._pictures.current({upload for upload in old.values() if upload})
            for key, upload in old.items():
                if upload not in current:
                    log.warning("deleting %s: it has no row", key)
                    await self._store.delete_file(key)
        for path in self._store.half_written():
            if path.stat().st_mtime < oldest.timestamp():
                log.warning("deleting %s: a process was killed while it wrote it", path.name)
                path.unlink(missing_ok=True)

    async def _order_incomplete(self) -> None:
        before = None
        while pictures := await self._pictures.newest(before):
            before = pictures[-1].id
            for picture in pictures:
                if picture.state != "ready":
                    continue
                if missing := {ORIGINAL, THUMBNAIL, LARGE} - await self._store.names(picture.id, picture.upload):
                    log.warning("%s lacks %s: another job", picture.id, ", ".join(sorted(missing)))
                    await self._pictures.order_again(picture.id, picture.upload)


def _upload_of(key: str) -> UUID | None:
    """The upload to which a file belongs; None if no picture can have a file with this key."""
    try:
        _, upload, name = key.split("/")
        return UUID(upload) if name in (ORIGINAL, THUMBNAIL, LARGE) else None
    except ValueError:
        return None
