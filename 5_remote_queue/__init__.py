"""Strategy 5."""

ROLES = ("server", "worker", "scheduler")
DEMO = "demo"
SERVICES = ("inbox", "valkey")
