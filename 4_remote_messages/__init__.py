"""Strategy 4: remote messages. A process anywhere does the sending; it hears of emails over Redis pub/sub.

What happens to a request   The server publishes the email on a channel in Redis. Each worker subscribed at this moment
                            gets a copy, keeps it in memory and sends it, slowly if need be, and again if need be.
What the answer means       202: at least one worker received it. 503: none did, or Redis is away. With ?wait=SECONDS
                            the server waits for a worker's report: 200 sent, 502 not sent, 504 nobody has reported.
What can be lost            Everything that a killed worker holds; and what was published and not yet read when Redis is
                            killed, or when Redis cuts off a worker that reads too slowly. All that was answered 202.
What can come twice         Everything, as often as there are workers: each subscriber sends its copy.
How it scales               The web servers to many machines, the workers not at all: there can be only one.
What to try                 make run-4 WORKERS=2, send ten, and look at the copies in the inbox.
"""

ROLES = ("server", "worker")
SERVICES = ("inbox", "valkey")
