"""Strategy 3: local messages. Another process on this machine sends the email, and a third one supervises both.

What happens to a request   The web server sends the email to the master over a pipe. The master keeps it and passes it
                            to the email worker, which sends it, throttled and with retries if necessary.
What the answer means       202: the master holds the email. It drops the email when the worker has reported that it was
                            sent, or when it gives up after ATTEMPTS tries (a line in the log, a number in /stats).
What can be lost            Nothing when the server or the worker is killed, however often. Every email that waits or is
                            in flight when the master is killed, because the master keeps emails only in memory.
What can come twice         What was in flight when the worker was killed, at most 50 emails for each kill.
How it scales               Not beyond one web server and one worker on one machine. The queue has a limit (128 MB);
                            beyond it the answer is 503.
What to try                 make run-3 EMAILS_PER_SECOND=1, send twenty, kill -9 the email worker: all twenty arrive.
"""

ROLES = ("master",)
SERVICES = ("inbox",)
