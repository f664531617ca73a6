-- Count events by domain. An event that comes again is not counted again.
-- KEYS: 1 counts (hash)  2 ids of the counted events (set)
-- ARGV: 1 seconds until the counts expire  2 seconds until the ids expire  3 "id domain\nid domain\n…"
redis.call('EXPIRE', KEYS[1], ARGV[1]) -- first, so that a full Redis allows the next writes: see scripts.py
for id, domain in string.gmatch(ARGV[3], '(%S+) ([^\n]*)\n') do
    if redis.call('SADD', KEYS[2], id) == 1 then
        redis.call('HINCRBY', KEYS[1], domain, 1)
    end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
