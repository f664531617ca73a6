"""Your file: a handler of strategy 6. It counts the emails that were sent to each domain.

exercise:sent   hash   domain -> how many emails were sent to it

Add keys of your own that begin with `exercise:handled` if you need any.
"""

from typing import Any


async def handle(redis: Any, event: dict[str, Any]) -> None:
    """Handle one event: {"id": "…", "name": "email_sent", "data": {"to": "alice@example.com"}}."""
    domain = event["data"]["to"].rpartition("@")[2]
    await redis.hincrby("exercise:sent", domain, 1)
