-- Place a group after an id and forget what it has claimed.
-- KEYS: 1 events (stream)  2 holders (hash)   ARGV: 1 consumer (group)  2 id
redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], ARGV[2])
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000)
while #pending > 0 do
    for _, entry in ipairs(pending) do
        redis.call('XACK', KEYS[1], ARGV[1], entry[1])
    end
    pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000)
end
redis.call('DEL', KEYS[2])
return 1
