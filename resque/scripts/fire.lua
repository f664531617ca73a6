-- A schedule is due: enqueue its job and record for which second, both or neither. This happens only if the schedule's
-- mark is still the one that the caller read, so each second fires once, however many schedulers run or die. A
-- resque-scheduler that is the leader fires the schedules in Redis; it does not know those given in code.
--
-- KEYS  Ruby's lock, delayed:last_enqueued_at, py:cron, queues, queue:QUEUE
-- ARGV  our name in the lock, the schedule's name, the mark that the caller read or "", its new mark,
--       queue's name, RAW or "" (the schedule is new: it can become due from now on), its second as Ruby writes it,
--       1 if the schedule is in Redis
-- Returns 1 if it was done, else 0.
-- prelude.lua is put before this.
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
