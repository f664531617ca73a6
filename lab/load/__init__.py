"""Load generators, each a separate program.

http, steady   for the web servers: a closed loop, and a steady rate (an open loop)
mailer, smtp   for mail servers: our mailer, and the bare SMTP conversation
queue, log     for the engines of strategies 5 and 6
redis          for Redis itself
bare_web       no load generator, but the web server to compare with
"""
