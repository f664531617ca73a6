-- Put the jobs of slots whose lease has ended back at the head of their queue.
-- KEYS  py:leases, workers; the others are derived from what these contain
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, 100)) do
    local worker = 'resque:worker:' .. id
    local record = redis.call('GET', worker)
    local at = record and string.find(record, ',"payload":', 1, true)
    if at then
        local queue = cjson.decode(string.sub(record, 1, at - 1) .. '}').queue
        redis.call('LPUSH', 'resque:queue:' .. queue, string.sub(record, at + 11, -2))
    end
    redis.call('DEL', worker, worker .. ':started')
    redis.call('SREM', KEYS[2], id)
    redis.call('ZREM', KEYS[1], id)
end
