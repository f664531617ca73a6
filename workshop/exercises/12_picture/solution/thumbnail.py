"""Your file: the job that makes the thumbnail of a picture.

pictures:status   hash   name of the picture -> "done", or "failed: REASON"
"""

from typing import Any

from picture import THUMBNAILS, NotAPicture, scaled


async def make_thumbnail(redis: Any, name: str) -> None:
    """The job. It is repeated if its worker dies before it has returned."""
    half = THUMBNAILS / f".{name}.half"  # the same name at each attempt, so that a kill leaves nothing for long
    try:
        with open(half, "w") as file:  # noqa: ASYNC230  it is a small file
            async for line in scaled(name):
                file.write(line)
                file.flush()
    except NotAPicture as error:
        half.unlink()
        await redis.hset("pictures:status", name, f"failed: {error}")
        return
    half.replace(THUMBNAILS / name)  # readers see the old file or the whole new one
    await redis.hset("pictures:status", name, "done")
