"""Strategy 6: an event bus. "An email was requested" is an event in a log; sending it is what one reader does with it.

What happens to a request   The server appends an event to a log in Redis. Consumers read the log, each at its own pace,
                            and their handlers act on it: one sends the email, another one counts.
What the answer means       202: the event is in the log, and every consumer will come to it. 503: Redis is away.
What can be lost            Nothing when the server, a worker or Redis is killed, however often, as far as Redis has
                            written its file. An email that nobody takes is parked, with the reason.
What can come twice         What was in flight when a worker was killed, at most 50 emails for each kill; and what
                            somebody replays, on purpose.
How it scales               Any number of servers and workers, on one Redis; its keys would let the partitions of the
                            log spread over a Redis Cluster, with clients that know one. History costs memory, so the
                            log is trimmed behind its slowest consumer.
What to try                 make run-6, send ten, open /log, and replay the audit from the beginning.
"""

ROLES = ("server", "worker")
SERVICES = ("inbox", "valkey")
ENGINES = {"jetstream": ("inbox", "nats")}  # in place of SERVICES, by LOG
