-- Count events by domain, each once, however often it comes.
-- KEYS: 1 counts (hash)  2 the ids that have been counted (set)
-- ARGV: 1 seconds that the counts stay  2 seconds that the ids stay  3 "id domain\nid domain\n…"
redis.call('EXPIRE', KEYS[1], ARGV[1]) -- first, so that a full Redis takes the rest: see scripts.py
for id, domain in string.gmatch(ARGV[3], '(%S+) ([^\n]*)\n') do
    if redis.call('SADD', KEYS[2], id) == 1 then
        redis.call('HINCRBY', KEYS[1], domain, 1)
    end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
