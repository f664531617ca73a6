"""Strategy 1: foreground. The request waits for the send.

What happens to a request   The handler hands the email to the mail server and awaits its answer, then answers.
What the answer means       200: the mail server said 250. 502, 503, 504: it refused, is away, or gave no answer.
What can be lost            Nothing that was answered with 200. A killed server takes its open requests with it, and
                            their callers know: they have no answer.
What can come twice         What the caller repeats. After a 504 "in doubt" the email may have arrived all the same.
How it scales               As far as the mail server does: each caller waits as long as the mail server takes.
What to try                 Turn the inbox's dial to a latency of 2000 ms: every answer takes two seconds.
"""

ROLES = ("server",)
SERVICES = ("inbox",)
