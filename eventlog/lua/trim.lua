-- Delete the events of a sealed partition. A tombstone stays: its length and the next partition, so that a producer or a
-- consumer that comes late does not take it for a new one, and how many events each consumer had not handled.
-- KEYS: 1 events (list)  2 state (hash)  3 counters (hash)  4 ids (hash)  5, 6, … pending, holders of each consumer
-- ARGV: 1 seconds for which the tombstone stays  2, 3, … the consumers
-- Returns how many events were deleted.
redis.call('PERSIST', KEYS[1]) -- changes nothing, but a full Redis then allows the next writes: see scripts.py
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
