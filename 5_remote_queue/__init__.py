"""Strategy 5."""

ROLES = ("server", "worker", "scheduler")
SERVICES = ("inbox", "valkey")
