"""Strategy 4: remote messages. A process on any machine sends the email; it receives it over Redis pub/sub.

What happens to a request   The server publishes the email on a channel in Redis. Each worker that is subscribed at this
                            moment gets a copy, keeps it in memory and sends it, throttled and with retries.
What the answer means       202: at least one worker received it. 503: none did, or Redis is down. With ?wait=SECONDS
                            the server waits for a worker's report: 200 sent, 502 not sent, 504 no report in time.
What can be lost            Every email that a killed worker holds; and what is published and not yet read when Redis is
                            killed, or when Redis cuts off a worker that reads too slowly. All were answered with 202.
What can come twice         Everything, as often as there are workers: each subscriber sends its copy.
How it scales               You can run web servers on many machines, but only one worker.
What to try                 make run-4 WORKERS=2, send ten, and look at the copies in the inbox.
"""

ROLES = ("server", "worker")
SERVICES = ("inbox", "valkey")
