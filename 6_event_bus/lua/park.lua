-- Put an event on the shelf.
-- KEYS: 1 parked (hash)   ARGV: 1 position  2 entry
redis.call('PERSIST', KEYS[1]) -- changes nothing: see scripts.py, a full Redis
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
