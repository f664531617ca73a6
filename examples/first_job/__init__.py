"""Your first job: a page that creates jobs, a worker that runs them, and the pages of the queue."""

ROLES = ("server", "worker")
SERVICES = ("inbox", "valkey")
OPEN = {"create jobs": "", "see the queue": "jobs"}
