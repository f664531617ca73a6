-- Register a consumer: from now on the log keeps events until this consumer has handled them.
-- KEYS: 1 consumers (set)   ARGV: 1 its name
redis.call('PERSIST', KEYS[1]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
return redis.call('SADD', KEYS[1], ARGV[1])
