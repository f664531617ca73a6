-- Move delayed jobs that are due into their queues, exactly as they are.
--
-- Two schedulers that move the same job double it, so each kind has a lock for its leader. While a foreign leader holds
-- one, this moves nothing. All processes of ours lead together, because each call is one step. So this needs no lock
-- between two calls, and it takes none of Ruby's: a resque-scheduler that starts leads at once, and fires its own cron.
-- It holds Node's, whose leader does nothing that ours does not, and rounds numbers.
--
-- KEYS  Node's lock, Ruby's lock, delayed_queue_schedule, queues, py:unreadable; the others are made of what is found
-- ARGV  1: namespace   2: our name in the lock   3: how long it is ours (ms)   4: how many jobs at most
-- Returns {who leads, jobs moved, 1 if more are due, ms until the lock of a foreign leader ends, for how many seconds
-- its oldest job has been due}.
-- Before this stands prelude.lua.
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
even_when_full(schedule)
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
        if type(raw) == 'table' then redis.call('ZREM', schedule, second) end -- an error: what is there is no list
        if type(raw) ~= 'string' then break end
        move(raw)
        redis.call('LPOP', delayed)
        redis.pcall('SREM', namespace .. ':timestamps:' .. raw, 'delayed:' .. second)
        moved = moved + 1
    end
    if redis.call('EXISTS', delayed) == 0 then redis.call('ZREM', schedule, second) end
end
return {us, moved, #redis.call('ZRANGEBYSCORE', schedule, '-inf', now, 'LIMIT', 0, 1), 0, 0}
