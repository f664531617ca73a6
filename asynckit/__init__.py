"""What the engines and the chapters share on asyncio and Redis. It has nothing to do with jobs, events or email.

batcher       group commit: the calls of many tasks become one command
redis_client  connections to Redis that repeat no command and do not hang; sentinel and cluster find the primaries
heartbeat     a heartbeat from a thread, which a busy event loop cannot delay
tasks         background tasks whose errors are logged, and how to stop them
isolation     runs the code of a job or of a handler so that its errors affect only its own attempt
error_text    the message of an exception, as a string that can always be stored
backoff       the pause before a retry
log_limit     a log line at most once a second
durability    which settings of Redis could lose data in a crash
ids           Message-IDs that sort by age
printing      checks command-line arguments; the exit status of a command whose output may be a pipe
host_names    refuses host names that the resolver cannot look up
web           for pages: server-sent events, form tokens, HTML, JSON, the style sheet
"""
