"""Strategy 2: parallel. The request starts a task that sends the email, and is answered at once.

What happens to a request   The handler starts a task and answers. The task sends the email to the mail server later.
What the answer means       202: a task was started. The caller never learns whether the email was sent.
What can be lost            Every email in flight when the server is killed, and every email that the mail server did
                            not take: it leaves a line in the log and a number in /stats, and is not tried again.
What can come twice         Almost nothing: each email is tried once.
How it scales               Answers are as fast as the web server. The emails in flight have a limit; beyond it: 503.
What to try                 Set the inbox to never reply (100 %), send ten, kill -9 the server: ten answers, no email.
"""

ROLES = ("server",)
SERVICES = ("inbox",)
