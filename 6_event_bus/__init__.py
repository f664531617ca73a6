"""Strategy 6: an event bus. "An email was requested" is an event in a log, and one consumer of the log sends the email.

What happens to a request   The server appends an event to a log in Redis. Consumers read the log, each at its own pace,
                            and their handlers act on it: one sends the email, another one counts.
What the answer means       202: the event is in the log, and every consumer will handle it. 503: Redis is down or full.
What can be lost            Nothing if the server, a worker or Redis is killed, provided that Redis has written the
                            event to its file. An email that the mail server refuses is parked with the reason.
What can come twice         The emails that were in flight when a worker was killed, at most 50 for each kill; and
                            the emails that you replay.
How it scales               Any number of servers and workers. On a Redis Cluster the partitions of the log spread over
                            the nodes. History costs memory, so the log deletes old events that every consumer has
                            handled.
What to try                 make run-6, send ten, open /log, and replay the audit from the beginning.
"""

ROLES = ("server", "worker")
SERVICES = ("inbox", "valkey")
ENGINES = {"jetstream": ("inbox", "nats")}  # in place of SERVICES, by LOG
