"""Strategy 6: an event bus."""

ROLES = ("server", "worker")
SERVICES = ("inbox", "valkey")
