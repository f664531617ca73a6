-- Park an event.
-- KEYS: 1 parked (hash)  2 their order (zset)   ARGV: 1 position  2 entry  3 ms when that was
redis.call('PERSIST', KEYS[1]) -- changes nothing: see scripts.py, a full Redis
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
