"""Strategy 2: parallel. The request starts a task that sends, and is answered at once.

What happens to a request   The handler starts a task and answers. The task hands the email to the mail server later.
What the answer means       202: a task was started. Nothing more: whether the email was sent, the caller never learns.
What can be lost            Everything in flight when the server is killed, and every email that the mail server did not
                            take: a line in the log and a number in /stats, nobody tries again.
What can come twice         Almost nothing: each email is tried once.
How it scales               Answers are as fast as the web server. The work in flight is bounded: beyond the limit 503.
What to try                 Let the inbox hang (its dial, 100 %), send ten, kill -9 the server: ten answers, no email.
"""

ROLES = ("server",)
SERVICES = ("inbox",)
