-- Move delayed jobs that are due into their queues, unchanged.
--
-- Two schedulers that move the same job would duplicate it, so Ruby and Node each have a lock for their leader. While
-- another program holds one, this moves nothing. All our processes share the leadership: each call is atomic, so they
-- need no lock among themselves. This does not take Ruby's lock: a resque-scheduler that starts becomes leader at once
-- and fires its own cron schedules. (fire.lua takes it for a second.) This takes Node's lock, because Node's leader adds
-- nothing and rounds numbers.
--
-- KEYS  Node's lock, Ruby's lock, delayed_queue_schedule, queues, py:unreadable; the others are derived from these
-- ARGV  1: namespace   2: our name in the lock   3: how long we hold it (ms)   4: how many jobs at most
-- Returns {the leader, jobs moved, 1 if more are due, ms until another leader's lock expires, for how many seconds the
-- oldest job has been due}.
-- prelude.lua is put before this.
local schedule, queues, unreadable = KEYS[3], KEYS[4], KEYS[5]
local namespace, us, most = ARGV[1], ARGV[2], tonumber(ARGV[4])
for lock = 1, 2 do
    local leader = redis.call('GET', KEYS[lock])
    if leader and leader ~= us then
        local oldest = redis.pcall('ZRANGE', schedule, 0, 0, 'WITHSCORES')[2]
        local overdue = math.max(0, redis.call('TIME')[1] - (tonumber(oldest) or math.huge))
        return {leader, 0, 0, redis.call('PTTL', KEYS[lock]), overdue}
    end
end
allow_when_full(schedule)
redis.call('SET', KEYS[1], us, 'PX', ARGV[3])

local function move(raw)
    local readable, job = pcall(cjson.decode, raw)
    local queue = readable and type(job) == 'table' and job.queue
    if type(queue) == 'string' and queue ~= ''
        and type(redis.pcall('RPUSH', namespace .. ':queue:' .. queue, raw)) == 'number' then
        redis.pcall('SADD', queues, queue)
    else
        redis.call('RPUSH', unreadable, '', raw)
    end
end

local now = redis.call('TIME')[1]
local moved = 0
for _, second in ipairs(redis.call('ZRANGEBYSCORE', schedule, '-inf', now, 'LIMIT', 0, most)) do
    local delayed = namespace .. ':delayed:' .. second
    while moved < most do
        local raw = redis.pcall('LINDEX', delayed, 0)
        if type(raw) == 'table' then redis.call('ZREM', schedule, second) end -- an error: the key is not a list
        if type(raw) ~= 'string' then break end
        move(raw)
        redis.call('LPOP', delayed)
        redis.pcall('SREM', namespace .. ':timestamps:' .. raw, 'delayed:' .. second)
        moved = moved + 1
    end
    if redis.call('EXISTS', delayed) == 0 then redis.call('ZREM', schedule, second) end
end
return {us, moved, #redis.call('ZRANGEBYSCORE', schedule, '-inf', now, 'LIMIT', 0, 1), 0, 0}
