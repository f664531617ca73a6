"""Pictures, some of which are not, and a worker that is killed in the middle of one, while the folder is read."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from asynckit.tasks import end_tasks
from resque import Queue
from workshop.program import Failed
from workshop.trial import Trial

LEASE = "1"  # seconds
PICTURES = 5
SIZE = 12
KILL_AT = 2  # a row of the second picture
LOOK = "thumbnail.py"
LOOK_SECONDS = 0.01
END_SECONDS = 16.0  # on a busy machine
OLD = f"{PICTURES - 1}.pgm"  # has the thumbnail of an older picture, which a visitor is reading


class Folder:
    """The originals, and what their thumbnails must be."""

    def __init__(self, path: Path, trial: Trial) -> None:
        self.path = path
        self.whole: dict[str, str] = {}
        self.bad = {"text.pgm": "no picture", "half.pgm": f"P2\n{SIZE} {SIZE}\n9\n" + "1 " * SIZE * 5}
        self.half_seen: str | None = None
        (path / "originals").mkdir()
        self.thumbnails = path / "thumbnails"
        self.thumbnails.mkdir()
        for number in range(PICTURES):
            rows = [[trial.random.randrange(10) for _ in range(SIZE)] for _ in range(SIZE)]
            small = [row[::2] for row in rows[::2]]
            self.whole[f"{number}.pgm"] = text_of(small)
            (path / "originals" / f"{number}.pgm").write_text(text_of(rows))
        self.old = text_of([[0] * (SIZE // 2)] * (SIZE // 2))
        (self.thumbnails / OLD).write_text(self.old)
        for name, text in self.bad.items():
            (path / "originals" / name).write_text(text)

    def look(self) -> None:
        """Read all thumbnails, as visitors do, and note the first that is not whole."""
        for name, whole in {**self.whole, **dict.fromkeys(self.bad, "")}.items():
            path = self.thumbnails / name
            right = (whole, self.old) if name == OLD else (whole,)
            try:
                text = path.read_text()
            except FileNotFoundError:
                if name == OLD:
                    self.half_seen = f"{name} had a thumbnail, and then it was missing"
                continue
            if self.half_seen is None and text not in right:
                self.half_seen = f"{name} had {text.count(chr(10))} of {whole.count(chr(10))} lines"


def text_of(rows: list[list[int]]) -> str:
    lines = [" ".join(map(str, row)) for row in rows]
    return "\n".join(["P2", f"{len(rows[0])} {len(rows)}", "9", *lines]) + "\n"


async def check(trial: Trial) -> str:
    redis: Any = await trial.redis()
    with TemporaryDirectory() as name:
        folder = Folder(Path(name), trial)
        queue, names = Queue(redis), [*folder.whole, *folder.bad]
        for one in names:
            await queue.enqueue("pictures", "thumbnail", [{"name": one}])
        visitor = (folder.thumbnails / OLD).open()
        looking = asyncio.create_task(look(trial, redis, folder))
        try:
            victim = await trial.start("worker.py", PICTURES=name, LEASE_SECONDS=LEASE, SLOW_FILE=OLD)
            await victim.wait_for(rf"1.pgm: row {KILL_AT}")
            await victim.kill()
            worker = await trial.start("worker.py", PICTURES=name, LEASE_SECONDS=LEASE, SLOW_FILE=OLD)
            statuses = await wait_for_end(redis, folder, len(names))
        finally:
            await end_tasks([looking])
            read_by_visitor = visitor.read()
            visitor.close()
        if not looking.cancelled():
            looking.result()  # raises what it has seen
        compare(folder, statuses, worker.tail())
        if read_by_visitor != folder.old:
            happened = f"the job wrote into the old thumbnail of {OLD} while a visitor was reading it"
            raise Failed("each thumbnail is whole, at every moment", happened, LOOK)
    return f"{PICTURES} thumbnails are whole, and a visitor has never seen another"


async def look(trial: Trial, redis: Any, folder: Folder) -> None:
    """Look at the folder and at the statuses until something is wrong. Raises Failed then."""
    while True:
        for raw, status in (await redis.hgetall("pictures:status")).items():
            name = raw.decode()
            if status == b"done" and name in folder.whole and not (folder.thumbnails / name).exists():
                happened = f"{name} has the status `done`, but no thumbnail"
                raise Failed("the status is `done` only when the thumbnail is there", happened, LOOK)
        folder.look()
        if folder.half_seen:
            trial.measured = 1.0
            raise Failed("each thumbnail is whole, at every moment", f"{folder.half_seen}", LOOK)
        await asyncio.sleep(LOOK_SECONDS)


async def wait_for_end(redis: Any, folder: Folder, number: int) -> dict[str, str]:
    """The statuses when all jobs have ended, or when the time is over."""
    for _ in range(int(END_SECONDS / 0.05)):
        found = {name.decode(): status.decode() for name, status in (await redis.hgetall("pictures:status")).items()}
        busy = await redis.llen("resque:queue:pictures") or [k async for k in redis.scan_iter("resque:worker:*+*s")]
        if len(found) == number and not busy:
            break
        await asyncio.sleep(0.05)
    return found


def compare(folder: Folder, statuses: dict[str, str], tail: str) -> None:
    for name in folder.whole:
        if statuses.get(name) != "done":
            happened = f"{name} has the status {statuses.get(name, 'nothing')}; {tail}"
            raise Failed("each picture is done in the end", happened, LOOK)
    for name in folder.bad:
        if not statuses.get(name, "").startswith("failed: "):
            happened = f"{name} has the status {statuses.get(name, 'nothing')}"
            raise Failed("a file that is not a picture has `failed: REASON`", happened, LOOK)
    there = {path.name for path in folder.thumbnails.iterdir()}
    if missing := sorted(folder.whole.keys() - there):
        raise Failed("each picture has a thumbnail in the end", f"{missing[0]} has none", LOOK)
    for name, whole in folder.whole.items():
        path = folder.thumbnails / name
        if path.read_text() != whole:
            raise Failed("each thumbnail is made from its picture in the end", f"{name} has other content", LOOK)
    if more := sorted(there - folder.whole.keys()):
        raise Failed("the folder has thumbnails and nothing else in the end", f"there is {more[0]}", LOOK)
