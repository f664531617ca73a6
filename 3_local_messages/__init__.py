"""Strategy 3: local messages. Another process on this machine does the sending, and a third watches both.

What happens to a request   The web server hands the email to the master over a pipe. The master keeps it and hands it
                            to the email worker, which sends it, slowly if need be, and again if need be.
What the answer means       202: the master holds the email. It lets go when the worker has said that it was sent, or
                            when it gives up after ATTEMPTS tries (a line in the log, a number in /stats).
What can be lost            Nothing when the server or the worker is killed, however often. Everything that waits or is
                            in flight when the master is killed: it is kept in memory only.
What can come twice         What was in flight when the worker was killed, at most 50 emails for each kill.
How it scales               Not beyond one web server and one worker on one machine. The queue has an end (128 MB), and
                            beyond it the answer is 503.
What to try                 make run-3 EMAILS_PER_SECOND=1, send twenty, kill -9 the email worker: all twenty arrive.
"""

ROLES = ("master",)
SERVICES = ("inbox",)
