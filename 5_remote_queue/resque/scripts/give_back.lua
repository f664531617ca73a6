-- This job was not finished and nothing is wrong with it: from `worker:ID` back to the head of its queue.
--
-- KEYS  worker:ID, workers, queue:QUEUE
-- ARGV  ID, token, RAW
-- Returns 1, or 0: it was not the caller's any more.
local mark = '{"token":"' .. ARGV[2] .. '",'
if redis.call('GETRANGE', KEYS[1], 0, #mark - 1) ~= mark or redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 then
    return 0
end
redis.call('DEL', KEYS[1])
redis.call('LPUSH', KEYS[3], ARGV[3])
return 1
