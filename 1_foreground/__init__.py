"""Strategy 1: foreground. The request waits for the send.

What happens to a request   The handler sends the email to the mail server, waits for the reply, and then answers.
What the answer means       200: the mail server said 250. 502: it refused. 503: it is down. 504: it did not reply.
What can be lost            No email that was answered with 200. If the server is killed, its open requests fail, and
                            their callers notice it because they get no answer.
What can come twice         What the caller repeats. After a 504 "in doubt" the email may have arrived nevertheless.
How it scales               As far as the mail server does: each caller waits as long as the mail server takes.
What to try                 Set the inbox's latency to 2000 ms: every answer takes two seconds.
"""

ROLES = ("server",)
SERVICES = ("inbox",)
