-- Count events by domain. An event that comes again is not counted again.
-- KEYS: 1 counts (hash)  2 ids of the counted events (set)
-- ARGV: 1 seconds until the counts expire  2 seconds until the ids expire  3 "id domain\nid domain\n…"
redis.call('EXPIRE', KEYS[1], ARGV[1]) -- first, so that a full Redis allows the next writes: see scripts.py
local ids_of = {}
for id, domain in string.gmatch(ARGV[3], '(%S+) ([^\n]*)\n') do
    ids_of[domain] = ids_of[domain] or {}
    table.insert(ids_of[domain], id)
end
for domain, ids in pairs(ids_of) do
    local new = redis.call('SADD', KEYS[2], unpack(ids))
    if new > 0 then
        redis.call('HINCRBY', KEYS[1], domain, new)
    end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
