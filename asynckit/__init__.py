"""What the engines and the chapters share on asyncio and Redis. It knows neither jobs nor events nor email.

batcher       group commit: the calls of many tasks become one command
redis_client  connections to Redis that repeat no command and do not hang
heartbeat     a sign of life from a thread, which a busy event loop cannot delay
tasks         background tasks whose errors are logged, and their orderly end
backoff       the pause before another attempt
log           a log line at most once a second
durability    what a crash of Redis could lose, by its settings
ids           Message-IDs that sort by age
web           what pages share: server-sent events, form tokens, HTML, JSON, the style sheet
"""
