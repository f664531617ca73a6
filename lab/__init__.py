"""The lab: experiments over all six strategies, each from the outside, as a reader would start them.

screenshots pictures of the pages, for the README
compare     the six side by side; compare_report is its table and its figure
faults      kill things, and count: promises says what may happen, hits does it, preparations is what some need first,
            cell is one fault done to one strategy, account says what became of each email, faults_report is its table
bench       how fast the parts are, each beside a reference of the same run; its groups are the files bench_*.py, and
            each_once is the account of ids that two of them have
tables      what these three have measured, into the READMEs; command is what they have in common

steady      an HTTP load generator with a steady rate, an open loop, for compare and faults
inbox       the embedded inbox with a file for a memory, so that it may be killed; mailbox is the lab's end of it
sink        an SMTP server that drops mail and knows what came when; sinks.py chooses between it and Postfix's
load        an HTTP load generator that asks as fast as it can; load_mailer, load_smtp, load_redis, load_queue and
            load_log are the same for our mailer, bare SMTP, Redis, strategy 5's queue and strategy 6's log
bare_web    the web servers to compare with
children    child processes that are always ended; strategies.py starts a strategy by `make run-N`, and valkey.py
            a Valkey for a part alone
figures     medians and percentiles; machine.py says what was measured on

What measures, what is measured and what receives the mail are processes of their own: none waits for another's event
loop.
"""
