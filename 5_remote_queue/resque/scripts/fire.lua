-- A schedule is due: enqueue its job and note for which second, both or neither. Only if we lead, and nobody has been
-- here since the caller looked: once for each second, however many look, and however they die.
--
-- KEYS  Node's lock, Ruby's lock, py:cron, queues, queue:QUEUE
-- ARGV  our name in the locks, the schedule's name, its mark that the caller saw or "", its new mark,
--       queue's name, RAW or "" (it is new: from now on it can become due)
-- Returns 1 if it is done, else 0.
-- Before this stands prelude.lua.
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('GET', KEYS[2]) ~= ARGV[1]
    or (redis.call('HGET', KEYS[3], ARGV[2]) or '') ~= ARGV[3] then
    return 0
end
if ARGV[6] ~= '' then
    redis.call('RPUSH', KEYS[5], ARGV[6])
    redis.call('SADD', KEYS[4], ARGV[5])
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
return 1
