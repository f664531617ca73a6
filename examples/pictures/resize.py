"""The job: make the versions of one upload. The queue may run it twice, and two workers may run it at the same time."""

import logging
from uuid import UUID

from .database import DOWN
from .pictures import Picture, Pictures
from .pool import Died, Pool, TookTooLong
from .store import LARGE, ORIGINAL, THUMBNAIL, Missing, Store, StoreDown, key_of
from .versions import BadPicture, make_versions

PROCESSES = 3  # that a picture may crash, or keep busy for too long
TRIES = 10  # then its worker has died again and again
OUTAGES = (*DOWN, StoreDown, TookTooLong, Died)  # what the job raises when it can be tried again
LOST = "its original is missing from the store"

log = logging.getLogger(__name__)


class Resize:
    def __init__(self, pictures: Pictures, store: Store, pool: Pool, max_pixels: int) -> None:
        self._pictures = pictures
        self._store = store
        self._pool = pool
        self._max_pixels = max_pixels

    async def __call__(self, arguments: dict[str, str]) -> None:
        """Raises what an outage of the store or of the database raises: the queue then tries the job again."""
        picture_id, upload = UUID(arguments["picture"]), UUID(arguments["upload"])
        try:
            original = await self._store.get(key_of(picture_id, upload, ORIGINAL))
        except Missing:
            original = None
        picture = await self._pictures.begin(picture_id, upload)  # counts a try: the store has answered before
        if picture is None:
            return  # deleted, replaced, or done by an earlier run of this job
        if original is None:
            await self._fail(picture, LOST)
        elif picture.tries > TRIES:
            await self._fail(picture, f"its worker has died {TRIES} times")
        else:
            await self._resize(picture, original)

    async def _resize(self, picture: Picture, original: bytes) -> None:
        try:
            versions = await self._pool.run(make_versions, original, picture.format, self._max_pixels)
        except BadPicture as error:
            return await self._fail(picture, str(error))
        except (TookTooLong, Died) as error:
            if picture.tries >= PROCESSES:
                return await self._fail(picture, f"{error}, {PROCESSES} times")
            raise
        try:
            await self._store.put(key_of(picture.id, picture.upload, THUMBNAIL), versions.thumbnail)
            await self._store.put(key_of(picture.id, picture.upload, LARGE), versions.large)
        except StoreDown:
            await self._pictures.give_back(picture.id, picture.upload)  # an outage is no fault of the picture
            raise
        if await self._pictures.finish(picture.id, picture.upload, versions.width, versions.height):
            log.info("ready: %s", picture.id)
        else:  # deleted or replaced in the meantime; if this process dies now, the sweep deletes the files
            await self._store.delete(picture.id, picture.upload)

    async def _fail(self, picture: Picture, reason: str) -> None:
        log.warning("failed: %s: %s", picture.id, reason)
        await self._pictures.fail(picture.id, picture.upload, reason)
