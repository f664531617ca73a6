"""The versions of ordinary, odd and hostile pictures, and the processes in which they are made."""

import io
import os
import signal
import struct
import time
import zlib
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageOps

from examples.pictures.formats import format_of
from examples.pictures.pool import Died, Pool, TookTooLong
from examples.pictures.versions import BadPicture, Versions, make_versions

MAX_PIXELS = 1_000_000
SCRIPT = b"<script>alert(document.domain)</script>"
Colour = tuple[int, ...]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, data: bytes, *more: bytes) -> bytes:
    """A PNG in RGB whose header says this size, whatever the data."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, *more, b"IDAT" + zlib.compress(data), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def versions_of(data: bytes) -> tuple[Versions, Image.Image]:
    """The versions, and the large one decoded."""
    kind = format_of(data[:16])
    assert kind is not None
    versions = make_versions(data, kind, MAX_PIXELS)
    large = Image.open(io.BytesIO(versions.large))
    large.load()
    return versions, large


def near(image: Image.Image, place: tuple[int, int], colour: Colour) -> bool:
    """Whether the pixel has this colour, as far as a lossy format keeps it."""
    found = image.convert("RGB").getpixel(place)
    assert isinstance(found, tuple)
    return all(abs(a - b) < 40 for a, b in zip(found, colour, strict=True))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_each_format_gets_both_versions(kind: str) -> None:
    versions, large = versions_of(encoded(Image.new("RGB", (900, 300), "red"), kind))
    assert (versions.width, versions.height) == large.size == (900, 300), "the large version is not enlarged"
    assert Image.open(io.BytesIO(versions.thumbnail)).size == (320, 107)
    assert near(large, (450, 150), (255, 0, 0))


def test_the_large_version_has_at_most_1600_pixels_and_the_size_is_the_original_s() -> None:
    data = encoded(Image.new("RGB", (9000, 100), "red"), "JPEG")
    versions, large = versions_of(data)
    assert (versions.width, versions.height) == (9000, 100)
    assert large.size == (1600, 18)


def test_one_pixel_and_a_line_stay_at_least_one_pixel_high() -> None:
    assert versions_of(encoded(Image.new("RGB", (1, 1), "blue"), "PNG"))[1].size == (1, 1)
    thumbnail = versions_of(encoded(Image.new("L", (5000, 1)), "PNG"))[0].thumbnail
    assert Image.open(io.BytesIO(thumbnail)).size == (320, 1)


def test_exif_turns_the_picture_and_is_not_in_the_versions() -> None:
    image = Image.new("RGB", (40, 20), "white")
    image.paste("red", (0, 0, 20, 20))  # the left half; upright, it is the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8825)[1] = "N"  # a place
    data = encoded(image, "JPEG", exif=exif, comment=SCRIPT, quality=95)
    assert Image.open(io.BytesIO(data)).getexif().get_ifd(0x8825), "the original has a place"
    versions, large = versions_of(data)
    assert (versions.width, versions.height) == large.size == (20, 40)
    assert near(large, (10, 5), (255, 0, 0))
    assert near(large, (10, 35), (255, 255, 255))
    for version in (versions.thumbnail, versions.large):
        found = Image.open(io.BytesIO(version))
        assert not found.getexif()
        assert {"exif", "xmp", "icc_profile", "comment"}.isdisjoint(found.info)
        assert b"Maker" not in version
        assert b"script" not in version


def test_cmyk_becomes_rgb() -> None:
    _, large = versions_of(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG"))
    assert large.mode == "RGB"
    assert near(large, (10, 10), (255, 0, 0))


def test_16_bits_of_grey_are_scaled() -> None:
    _, large = versions_of(encoded(Image.new("I;16", (20, 20), 128 * 256), "PNG"))
    assert near(large, (10, 10), (128, 128, 128))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_are_accepted_and_transparency_stays(mode: str) -> None:
    _, large = versions_of(encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 0)).convert(mode), "PNG"))
    assert (large.mode == "RGBA") is (mode in ("LA", "P", "RGBA"))


def test_of_an_animation_the_first_frame_is_shown() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100, loop=0)
    _, large = versions_of(data)
    assert getattr(large, "n_frames", 1) == 1
    assert near(large, (10, 10), (255, 0, 0))


@pytest.mark.parametrize("profile", [b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()])
def test_a_colour_profile_is_applied_and_a_damaged_one_does_no_harm(profile: bytes) -> None:
    _, large = versions_of(encoded(Image.new("RGB", (9, 9), "red"), "PNG", icc_profile=profile))
    assert near(large, (4, 4), (255, 0, 0))
    assert "icc_profile" not in large.info


def test_what_a_decoder_raises_without_a_message_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(BadPicture, match="it is damaged: KeyError"):
        versions_of(encoded(Image.new("RGB", (9, 9)), "PNG"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(50_000, 50_000, b"\0" * 1000), "too many pixels"),
        (png(1001, 1000, b""), "1001 by 1000 pixels; at most 1,000,000"),
        (png(100, 100, b"\0" * 100), "damaged"),
        (png(9, 9, b"\0" * 300, b"iCCP" + b"x\0\0" + zlib.compress(b"\0" * 50_000_000)), "damaged"),
        (encoded(Image.effect_noise((200, 200), 50), "JPEG")[:-2000], "truncated"),
        (encoded(Image.effect_noise((200, 200), 50), "PNG")[:200], "damaged"),
        (b"\xff\xd8\xff" + b"x" * 100, "header cannot be read"),
        (b"GIF89a" + SCRIPT, "damaged"),
    ],
    ids=["bomb", "too large", "too little data", "bomb in a profile", "truncated", "truncated PNG", "header", "script"],
)
def test_what_no_version_can_be_made_of_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadPicture, match=reason):
        versions_of(data)


def test_a_polyglot_is_decoded_as_what_its_first_bytes_say_and_its_rest_is_dropped() -> None:
    picture = encoded(Image.new("RGB", (20, 20), "red"), "GIF")
    versions, _ = versions_of(picture + SCRIPT)
    assert SCRIPT not in versions.large
    assert format_of((b"%!PS-Adobe-3.0 " + picture)[:16]) is None


@pytest.mark.parametrize(
    "head", [b"", b"\xff\xd8", b"BM6", b"RIFF0000WAVE", b"<svg xmlns=", b"%PDF-1.7", b"II*\0", SCRIPT]
)
def test_other_types_are_not_accepted(head: bytes) -> None:
    assert format_of(head) is None


# Functions that the pool runs in a process.


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def take_memory() -> None:
    try:
        bytearray(3_000_000_000)
    except MemoryError:
        raise BadPicture("too much memory") from None


async def test_the_pool_returns_raises_and_outlives_a_process_that_dies() -> None:
    pool = Pool(2, 20.0, 1_000_000_000)
    assert await pool.run(pow, 2, 10) == 1024
    with pytest.raises(BadPicture, match="header"):
        await pool.run(make_versions, b"GIF89a", "PNG", MAX_PIXELS)
    with pytest.raises(Died):
        await pool.run(die)
    with pytest.raises(BadPicture, match="too much memory"):
        await pool.run(take_memory)
    assert await pool.run(pow, 2, 10) == 1024


async def test_the_pool_kills_a_process_at_its_limit_and_goes_on() -> None:
    pool = Pool(1, 1.0, 1_000_000_000)
    with pytest.raises(TookTooLong, match="longer than 1 s"):
        await pool.run(time.sleep, 3600)
    assert await Pool(1, 20.0, 1_000_000_000).run(pow, 2, 3) == 8
