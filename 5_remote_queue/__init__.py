"""Strategy 5: remote queue. The email is a job in a list in Redis, in Resque's format, until a worker has sent it.

What happens to a request   The server puts a job into a list in Redis. A worker claims it under a lease, sends the
                            email, and only then removes the job. If a process dies in between, the job is still in
                            Redis.
What the answer means       202: the job is in Redis, and on disk if Redis is configured for that. 503: Redis is down or
                            full. 504: Redis did not answer, and the email may still be sent.
What can be lost            Nothing when servers, workers, mail servers or Redis (with append-only file) are killed.
                            Emails that fail for good are in the failed list, with the reason.
What can come twice         An email whose worker was killed, or suspended for longer than its lease, while sending it.
How it scales               Servers and workers on any number of machines, in Python, Ruby and Node. One queue is one
                            key, so its limit is one Redis.
What to try                 kill -9 a worker while the mail server hangs; make run-5 DEMO=1.
"""

from .schedules import SCHEDULES

ROLES = ("server", "worker", "scheduler")
NOT_NEEDED = () if SCHEDULES else ("scheduler",)  # `make run-5` starts these only if ROLE names them
DEMO = "demo"
SERVICES = ("inbox", "valkey")
ON_RABBITMQ = (("server", "worker"), ("inbox", "rabbitmq"))  # QUEUE=rabbitmq: the roles, and the services
