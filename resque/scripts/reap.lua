-- Bring back what the dead left behind: the jobs of workers whose lease has ended.
--
-- KEYS  py:leases, workers, workers:heartbeat, failed, py:crashes, py:attempts, py:totals, stat:processed, stat:failed,
--       py:unreadable, py:reaping; the others are made of what is found in these, so all must be in one slot of a cluster
-- ARGV  1: namespace   2: crashes after which a job is given up   3: now, as in a failure record   4: at most so many
--       5: if nobody has looked for so long (ms), then nobody could   6: how long the living then have to say so (ms)
-- Returns for each {ID, queue or "", what was done: "back", "failed", "filed" (somebody else had put it into `failed`
--       already) or "" (it had no job), RAW or ""}.
-- Before this stands prelude.lua.
local leases, workers, heartbeats, failed, crashes, attempts, totals, processed, failures, unreadable, reaping =
    unpack(KEYS)
local namespace, limit, failed_at = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local ANSWERED_FOR = 1000 -- so many of the latest failures are searched for one that names a worker
local CLOCK_SLACK = 1000 -- ms
local now = now_ms()

-- A text in JSON as JavaScript writes it (wire.py says why): without an escape before each slash.
local function quote(text)
    return (string.gsub(cjson.encode(text), '\\/', '/'))
end

local function give_up(id, queue, raw, reason)
    redis.call('RPUSH', failed, table.concat({
        '{"failed_at":', quote(failed_at), ',"payload":', raw, ',"exception":"WorkerLost","error":', quote(reason),
        ',"backtrace":[],"worker":', quote(id), ',"queue":', quote(queue), '}'}))
    local key = job_key(queue, raw)
    redis.call('HDEL', crashes, key)
    redis.call('HDEL', attempts, key)
    redis.pcall('HINCRBY', totals, 'failed', 1)
    redis.pcall('INCR', processed)
    redis.pcall('INCR', failures)
end

-- Node's forceClean takes a worker out of `workers`, puts its job into `failed`, and leaves its record behind.
local function is_filed(name)
    local mark = '"worker":' .. quote(name)
    for _, record in ipairs(redis.call('LRANGE', failed, -ANSWERED_FOR, -1)) do
        if string.find(record, mark, 1, true) then return true end
    end
    return false
end

local function recover(id, record)
    local head, raw = split(record)
    if not head then
        redis.call('RPUSH', unreadable, '', record)
        return '', 'failed', record
    end
    if redis.call('SISMEMBER', workers, id) == 0 then
        if is_filed(head.worker) then return head.queue, 'filed', raw end
        give_up(id, head.queue, raw, 'its worker was removed by somebody who did not say what became of the job')
        return head.queue, 'failed', raw
    end
    local count = redis.call('HINCRBY', crashes, job_key(head.queue, raw), 1)
    redis.pcall('HINCRBY', totals, 'crashed', 1)
    if count >= limit then
        give_up(id, head.queue, raw, 'its worker was gone while it ran, ' .. count .. ' times')
        return head.queue, 'failed', raw
    end
    if type(redis.pcall('LPUSH', namespace .. ':queue:' .. head.queue, raw)) == 'table' then
        give_up(id, head.queue, raw, 'its worker was gone while it ran, and its queue is no list')
        return head.queue, 'failed', raw
    end
    return head.queue, 'back', raw
end

-- Redis's clock was put back: no lease may last longer than one that begins now (three times the time of ARGV 6).
local function shorten_leases()
    local longest = now + 3 * ARGV[6]
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '(' .. longest, '+inf')) do
        redis.call('ZADD', leases, longest, id)
    end
end

-- Everybody looks twice a second. When nobody has for long, Redis was away, and nobody could beat either: whoever asks
-- first would find all leases ended, and every job that runs would have crashed. So the living come first.
local function is_too_early()
    local looked = tonumber(redis.pcall('HGET', reaping, 'looked'))
    if looked and looked > now + CLOCK_SLACK then shorten_leases() end
    redis.pcall('HSET', reaping, 'looked', now)
    if looked and now - looked > tonumber(ARGV[5]) then redis.pcall('HSET', reaping, 'from', now + ARGV[6]) end
    local from = tonumber(redis.pcall('HGET', reaping, 'from')) or 0
    return now < from and from <= now + ARGV[6]
end

even_when_full(leases)
if is_too_early() then return {} end
local answer = {}
for i, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', '(' .. now, 'LIMIT', 0, tonumber(ARGV[4]))) do
    local worker = namespace .. ':worker:' .. id
    local record = redis.pcall('GET', worker)
    local queue, what, raw = '', '', ''
    if type(record) == 'string' then queue, what, raw = recover(id, record) end
    local name = string.match(id, '^[^:]*:?[^:]*')
    redis.call('DEL', worker, worker .. ':started', namespace .. ':worker:ping:' .. name,
        namespace .. ':stat:processed:' .. id, namespace .. ':stat:failed:' .. id)
    redis.call('SREM', workers, id)
    redis.call('HDEL', heartbeats, id)
    redis.call('ZREM', leases, id)
    answer[i] = {id, queue, what, raw}
end
return answer
