"""Strategy 5."""

ROLES = ("server", "worker")
SERVICES = ("inbox", "valkey")
