-- Move delayed jobs that are due into their queues, exactly as they are.
--
-- Two schedulers that move the same job double it, so each kind has a lock for its leader, and the two kinds know nothing
-- of each other: this takes both locks or does nothing. All processes of ours lead together under one name, because each
-- call is one step: when one of them dies, the next goes on at once.
--
-- KEYS  Node's lock, Ruby's lock, delayed_queue_schedule, queues, py:unreadable; the others are made of what is found
-- ARGV  1: namespace   2: our name in the locks   3: how long they are ours (ms)   4: at most so many jobs
-- Returns {who leads, jobs moved, 1 if more are due}.
-- Before this stands prelude.lua.
local schedule, queues, unreadable = KEYS[3], KEYS[4], KEYS[5]
local namespace, us, most = ARGV[1], ARGV[2], tonumber(ARGV[4])
for lock = 1, 2 do
    local leader = redis.call('GET', KEYS[lock])
    if leader and leader ~= us then return {leader, 0, 0} end
end
even_when_full(schedule)
redis.call('SET', KEYS[1], us, 'PX', ARGV[3])
redis.call('SET', KEYS[2], us, 'PX', ARGV[3])

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
return {us, moved, #redis.call('ZRANGEBYSCORE', schedule, '-inf', now, 'LIMIT', 0, 1)}
