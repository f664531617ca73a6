-- Delete the events of a partition that is sealed. What stays for a day is where it ended and which one is next, so that
-- nobody who was on the way to it mistakes it for a new one; and how much each consumer had not done.
-- KEYS: 1 events (list)  2 state (hash)  3 counters (hash)  4 ids (hash)  5, 6, … pending and holders of each consumer
-- ARGV: 1 seconds that the rest stays  2, 3, … the consumers
-- Returns how many events were deleted.
redis.call('PERSIST', KEYS[1]) -- changes nothing: see scripts.py, a full Redis
local following, length, trimmed = unpack(redis.call('HMGET', KEYS[2], 'next', 'length', 'trimmed'))
if not following or trimmed then
    return 0
end
for number = 2, #ARGV do
    local epoch, counter = string.match(redis.call('HGET', KEYS[3], ARGV[number]) or '', '^(%d+) (%d+)$')
    if epoch then
        local undone = redis.call('ZCARD', KEYS[2 * number + 1])
        redis.call('HSET', KEYS[3], ARGV[number], epoch .. ' ' .. math.max(0, counter - undone))
        redis.call('DEL', KEYS[2 * number + 1], KEYS[2 * number + 2])
    end
end
redis.call('DEL', KEYS[1], KEYS[4])
redis.call('HSET', KEYS[2], 'trimmed', 1)
redis.call('EXPIRE', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[3], ARGV[1])
return tonumber(length)
