"""The type of a file, from its first bytes. Its name and the client's Content-Type are not trusted."""

HEAD_BYTES = 16
ACCEPTED = "JPEG, PNG, GIF and WebP"


def format_of(head: bytes) -> str | None:
    """The name that Pillow has for the format, or None if it is not accepted."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    return None
