-- Read the next event and move the cursor, in one step.
-- KEYS  talk:partitions, talk:cursor   Returns the event, or nil at the end of the log.
local partition = redis.call('HGET', KEYS[2], 'partition') or '0'
local index = tonumber(redis.call('HGET', KEYS[2], 'index')) or 0
while partition do
    local event = redis.call('LINDEX', KEYS[1] .. ':' .. partition, index)
    if event then
        redis.call('HSET', KEYS[2], 'partition', partition, 'index', index + 1)
        return event
    end
    partition = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. partition, '+inf', 'LIMIT', 0, 1)[1]
    index = 0
end
return false
