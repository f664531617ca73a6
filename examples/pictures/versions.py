"""The versions of one picture, made by Pillow. Runs in a process of its own (pool.py): a picture may be an attack."""

import io
import warnings
from contextlib import suppress
from typing import NamedTuple

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

THUMBNAIL_PIXELS, LARGE_PIXELS = 320, 1600  # at most, in width and height
QUALITY = 80
ORIENTATION = 0x0112  # EXIF
SPEED = 2  # of WebP's methods, 0 to 6: the slower ones save a few per cent


class BadPicture(Exception):
    """No version can be made of it. Another attempt would fail as well. The message is for its owner."""


class Versions(NamedTuple):
    width: int
    height: int
    """Of the original, turned as its EXIF orientation says."""
    thumbnail: bytes
    large: bytes


def make_versions(original: bytes, kind: str, max_pixels: int) -> Versions:
    """Decode with the decoder of this format only, turn, convert to sRGB, and write both versions as WebP.

    They hold pixels only: no EXIF (with the place and the camera), no text, no code that a polyglot file carries. Of an
    animation, they show the first frame. Raises BadPicture.
    """
    warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF, and of pictures of half the limit
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with Image.open(io.BytesIO(original), formats=(kind,)) as image:
            _check_pixels(image, max_pixels)
            turned = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
            width, height = image.size[::-1] if turned else image.size
            image.draft(None, (2 * LARGE_PIXELS, 2 * LARGE_PIXELS))  # JPEG: decode to 1/2, 1/4 or 1/8 if that is enough
            upright = _srgb(ImageOps.exif_transpose(image))
        return Versions(width, height, _webp(upright, THUMBNAIL_PIXELS), _webp(upright, LARGE_PIXELS))
    except BadPicture:
        raise
    except MemoryError:
        raise BadPicture("it needs too much memory") from None
    except Exception as error:  # decoders raise whatever their data leads to: struct.error, KeyError, …
        raise BadPicture(_reason(error)) from None


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise BadPicture(f"it has {image.width} by {image.height} pixels; at most {max_pixels:,} are accepted")


def _srgb(image: Image.Image) -> Image.Image:
    """In 8 bits per channel, RGB or RGBA, in the colours that browsers assume."""
    if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would cut off instead of scaling
        image = image.point(lambda value: value / 256).convert("L")
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK"):
        with suppress(ImageCms.PyCMSError, OSError):  # a damaged profile: use the values as they are
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            assert converted is not None
            return converted
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _webp(image: Image.Image, pixels: int) -> bytes:
    small = image.copy()
    small.thumbnail((pixels, pixels))  # keeps the proportions, and never enlarges
    small.info.clear()
    file = io.BytesIO()
    small.save(file, "WEBP", quality=QUALITY, method=SPEED)
    return file.getvalue()


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is damaged: its header cannot be read"
    if isinstance(error, Image.DecompressionBombError):
        return "it has too many pixels"
    return f"it is damaged: {str(error) or type(error).__name__}"
