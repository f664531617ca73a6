-- A consumer is there: nothing is trimmed before it has done it.
-- KEYS: 1 consumers (set)   ARGV: 1 its name
redis.call('PERSIST', KEYS[1]) -- changes nothing: see scripts.py, a full Redis
return redis.call('SADD', KEYS[1], ARGV[1])
