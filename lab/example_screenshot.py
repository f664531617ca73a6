"""Take the picture of `examples/pictures` for its README. `make screenshots` runs this after the other pictures."""

import io
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from PIL import Image, ImageOps

from lab.chromium import find_browser
from lab.harness.processes import ROOT
from lab.screenshots import picture

SETTLE_SECONDS = 4.0
"""Within which all pictures are resized."""


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The example on free ports. Yields the address of its page."""
    settings = ["PORT=0", "VALKEY_PORT=0", "POSTGRES_PORT=0", f"DATA_DIR={folder}"]
    command = ["make", "example-pictures", *settings]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            yield next(line.split()[-1] for line in program.stdout if "upload pictures" in line)
        finally:
            program.terminate()


def upload(page: str) -> None:
    """One picture that fails because it is truncated, and three that become ready."""
    files = {
        "broken.jpg": Image.effect_noise((400, 300), 60),
        "sunset.jpg": ImageOps.colorize(Image.linear_gradient("L").resize((900, 600)), "#2b1055", "#ffb347", "#e0457b"),
        "mandelbrot.png": Image.effect_mandelbrot((600, 600), (-2.2, -1.5, 0.8, 1.5), 60),
        "sea.webp": ImageOps.colorize(Image.radial_gradient("L"), "#e0f7fa", "#01579b"),
    }
    for name, image in files.items():
        file = io.BytesIO()
        image.convert("RGB").save(file, Path(name).suffix[1:].replace("jpg", "jpeg"))
        data = file.getvalue()[: 9000 if name == "broken.jpg" else None]
        head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        request = Request(page, head + data + b"\r\n--x--\r\n", headers)  # noqa: S310  our own server
        urlopen(request).close()  # noqa: S310


def main() -> None:
    browser = find_browser()
    assert browser is not None
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as page:
        upload(page)
        time.sleep(SETTLE_SECONDS)
        picture(browser, page, "pictures", Path(folder) / "browser", height=640)


if __name__ == "__main__":
    main()
