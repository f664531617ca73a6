"""Your file: a handler of strategy 6. It counts the emails that were sent to each domain.

exercise:sent      hash   domain -> how many emails were sent to it
exercise:handled   set    the ids of the events that have been counted
"""

from typing import Any

COUNT_ONCE = """
if redis.call('SADD', KEYS[1], ARGV[1]) == 1 then
  redis.call('HINCRBY', KEYS[2], ARGV[2], 1)
end
"""


async def handle(redis: Any, event: dict[str, Any]) -> None:
    """Handle one event: {"id": "…", "name": "email_sent", "data": {"to": "alice@example.com"}}."""
    domain = event["data"]["to"].rpartition("@")[2]
    keys = ("exercise:handled", "exercise:sent")
    await redis.eval(COUNT_ONCE, len(keys), *keys, event["id"], domain)
