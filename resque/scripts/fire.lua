-- A schedule is due: enqueue its job and note for which second, both or neither. Only if its mark is still the one that
-- the caller has read: once for each second, however many look, and however they die. A resque-scheduler that leads fires
-- what stands in Redis; it does not know the schedules that are given in code.
--
-- KEYS  Ruby's lock, delayed:last_enqueued_at, py:cron, queues, queue:QUEUE
-- ARGV  our name in the lock, the schedule's name, its mark that the caller saw or "", its new mark,
--       queue's name, RAW or "" (it is new: from now on it can become due), its second as Ruby writes it,
--       1 if it stands in Redis
-- Returns 1 if it is done, else 0.
-- Before this stands prelude.lua.
local leader = ARGV[8] == '1' and redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] or (redis.call('HGET', KEYS[3], ARGV[2]) or '') ~= ARGV[3] then
    return 0
end
if ARGV[6] ~= '' then
    redis.call('RPUSH', KEYS[5], ARGV[6])
    redis.call('SADD', KEYS[4], ARGV[5])
    redis.pcall('HSET', KEYS[2], ARGV[2], ARGV[7])
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
return 1
