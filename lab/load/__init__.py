"""Load generators, each a program of its own: http and steady (an open loop) for the web servers, mailer and smtp for
mail, queue and log for the engines, redis for Redis itself; bare_web is the server to compare with.
"""
