"""Your file: the job that makes the thumbnail of a picture.

pictures:status   hash   name of the picture -> "done", or "failed: REASON"
"""

from typing import Any

from picture import THUMBNAILS, NotAPicture, scaled


async def make_thumbnail(redis: Any, name: str) -> None:
    """The job. It is repeated if its worker dies before it has returned."""
    try:
        with open(THUMBNAILS / name, "w") as file:  # noqa: ASYNC230  it is a small file
            await redis.hset("pictures:status", name, "done")
            async for line in scaled(name):
                file.write(line)
                file.flush()
    except NotAPicture as error:
        await redis.hset("pictures:status", name, f"failed: {error}")
