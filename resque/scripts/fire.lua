-- A schedule is due: enqueue its job and record for which second, both or neither. This happens only if the schedule's
-- mark is still the one that the caller read, so each second fires once, however many schedulers run or die. A
-- resque-scheduler that is the leader fires the schedules in Redis; it does not know those given in code.
--
-- A resque-scheduler that becomes the leader just now could fire the same second: it looks at the clock only every 0.3
-- seconds. So this takes Ruby's lock for a moment. It does so at most once in ten seconds: a resque-scheduler tries
-- to become the leader every five seconds, and a schedule that fires each second must not keep it out.
--
-- KEYS  Ruby's lock, delayed:last_enqueued_at, py:cron, queues, queue:QUEUE, py:guarded
-- ARGV  our name in the lock, the schedule's name, the mark that the caller read or "", its new mark,
--       queue's name, RAW or "" (the schedule is new: it can become due from now on), its second as Ruby writes it,
--       1 if the schedule is in Redis, the entry of delayed:last_enqueued_at that the caller read or ""
-- Returns 1 if it was done, else 0.
-- prelude.lua is put before this.
local GUARD, GUARD_EVERY = 1000, 10000 -- ms
local stored = ARGV[8] == '1'
local leader = stored and redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] or (redis.call('HGET', KEYS[3], ARGV[2]) or '') ~= ARGV[3] then
    return 0
end
if ARGV[6] ~= '' then
    -- a resque-scheduler that was the leader has fired it since the caller read
    local last = stored and redis.pcall('HGET', KEYS[2], ARGV[2])
    if type(last) == 'string' and last ~= ARGV[9] then return 0 end
    redis.call('RPUSH', KEYS[5], ARGV[6])
    redis.call('SADD', KEYS[4], ARGV[5])
    redis.pcall('HSET', KEYS[2], ARGV[2], ARGV[7])
    if stored and redis.call('SET', KEYS[6], 1, 'NX', 'PX', GUARD_EVERY) then
        redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', GUARD)
    end
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
return 1
