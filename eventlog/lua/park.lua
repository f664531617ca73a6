-- Park an event.
-- KEYS: 1 parked (hash)  2 their order (zset)   ARGV: 1 position  2 entry  3 ms now
redis.call('PERSIST', KEYS[1]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
