"""Strategy 5."""

ROLES = ("server", "worker")
DEMO = "demo"
SERVICES = ("inbox", "valkey")
