"""The lab: experiments over all six strategies, each from the outside, as a reader would start them.

bench       how fast the parts are, each beside a reference of the same run; its groups are the files bench_*.py
sink        an SMTP server that drops mail and knows what came when; sinks.py chooses between it and Postfix's
load        an HTTP load generator; load_mailer, load_smtp, load_redis, load_queue and load_log are the same for our
            mailer, bare SMTP, Redis, strategy 5's queue and strategy 6's log
bare_web    the web servers to compare with
children    child processes that are always ended; strategies.py starts a strategy by `python -m common.run`, and
            valkey.py the Valkey that it uses
figures     medians and percentiles; machine.py says what was measured on

What measures, what is measured and what receives the mail are processes of their own: none waits for another's event
loop.
"""
