-- Add to a consumer's figures.
-- KEYS: 1 counts (hash)   ARGV: 1 name  2 number to add  3 name  4 …
redis.call('PERSIST', KEYS[1]) -- changes nothing: see scripts.py, a full Redis
for at = 1, #ARGV, 2 do
    redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1])
end
