-- Add to a consumer's counts.
-- KEYS: 1 counts (hash)   ARGV: 1 name  2 number to add  3 name  4 …
redis.call('PERSIST', KEYS[1]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
for at = 1, #ARGV, 2 do
    redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1])
end
