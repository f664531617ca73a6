"""The picture example, started by the command that a reader types, and its HTTP interface."""

import asyncio
import http.client
import io
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from PIL import Image

from tests.support.postgres import postgres_of
from tests.support.programs import LIMIT, START_SECONDS, Answer, Program, Strategy, wait_until

Fields = dict[str, str | bytes | tuple[str, bytes]]
"""The fields of a form; a file is its name and its bytes."""


def a_picture(kind: str = "PNG", size: tuple[int, int] = (400, 300), colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def multipart(fields: Fields) -> tuple[str, bytes]:
    """The Content-Type and the body of a form."""
    boundary, body = uuid.uuid4().hex, b""
    for name, value in fields.items():
        filename, data = value if isinstance(value, tuple) else (None, value)
        data = data.encode() if isinstance(data, str) else data
        extra = f'; filename="{filename}"' if filename is not None else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode()
        body += data + b"\r\n"
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


class Example(Strategy):
    """The running example. Its roles can be killed as those of a strategy can."""

    def __init__(self, program: Program, url: str, data_dir: Path) -> None:
        super().__init__("examples.pictures", program, url)
        self.data_dir = data_dir

    def request(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str
    ) -> tuple[Answer, bytes]:
        """The answer, and its body as bytes. `Content_Type="…"` sets the header Content-Type."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=LIMIT)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            data = response.read()
            return Answer(response.status, response.headers, data.decode(errors="replace")), data
        finally:
            connection.close()

    def form(self, method: str, path: str, fields: Fields, **headers: str) -> Answer:
        content_type, body = multipart(fields)
        return self.request(method, path, body, Content_Type=content_type, **headers)[0]

    def upload(self, data: bytes | None = None, name: str = "red.png") -> Answer:
        return self.form("POST", "/files", {"file": (name, a_picture() if data is None else data)})

    def files(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.request("GET", "/files")[0].text)["files"]
        return found

    def wait_for(self, url: str, state: str) -> dict[str, Any]:
        """Wait until the picture at this address has the state; returns it."""

        def has_it() -> dict[str, Any] | None:
            found: dict[str, Any] = self.request("GET", url)[0].json
            return found if found["state"] == state else None

        return wait_until(has_it, f"{url} is {state}: {self.program.output}", START_SECONDS)

    def waiting_in_outbox(self) -> int:
        """How many jobs the queue does not have yet."""

        async def count() -> int:
            connection = await asyncpg.connect(postgres_of(self.data_dir).url)
            try:
                return int(await connection.fetchval("SELECT count(*) FROM outbox"))
            finally:
                await connection.close()

        return asyncio.run(count())

    def folders(self, url: str) -> list[Path]:
        """The folders of the uploads of the picture at this address."""
        return list((self.data_dir / "pictures" / url.rpartition("/")[2]).glob("*"))


@contextmanager
def running_pictures(data_dir: Path, **environment: str) -> Iterator[Example]:
    ports = {"PORT": "0", "VALKEY_PORT": "0", "POSTGRES_PORT": "0", "RABBITMQ_PORT": "0"}
    program = Program(["make", "example-pictures"], ports | {"DATA_DIR": str(data_dir)} | environment)
    try:
        url = program.wait_for_line(r"^examples\.pictures listens on (http://\S+)/$", 2 * START_SECONDS)[1]
        yield Example(program, url, data_dir)
    finally:
        program.stop()
    # Python's fork server prints a traceback if its parent is killed while it reads a request.
    output = re.sub(r"Traceback (?:.*\n){1,9}?.*\bEOFError\n", "", program.output)
    assert "Traceback" not in output, output[output.index("Traceback") - 500 :]
