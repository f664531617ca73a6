-- Recover the jobs of dead workers: put the jobs of workers whose lease has ended back into their queues.
--
-- KEYS  py:leases, workers, workers:heartbeat, failed, py:crashes, py:attempts, py:totals, stat:processed, stat:failed,
--       py:unreadable, py:reaping, py:counted, queues; the others are derived from these, so all must be in one slot of
--       a cluster
-- ARGV  1: namespace   2: crashes after which a job fails   3: now, as in a failure record   4: workers at most
--       5: a gap (ms) without any call of this script that means Redis was down   6: how long live workers then have to
--       renew their lease (ms)
-- Returns for each worker {ID, queue or "", what was done: "back", "failed", "filed" (another program had already put
--       the job into `failed`) or "" (it had no job), RAW or ""}.
-- prelude.lua is put before this.
local leases, workers, heartbeats, failed, crashes, attempts, totals, processed, failures, unreadable, reaping, counted,
    queues = unpack(KEYS)
local namespace, limit, failed_at = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local FILED_AMONG = 1000 -- how many of the latest failures are searched for one that names the worker
local CLOCK_SLACK = 1000 -- ms
local now = now_ms()

-- A JSON string as JavaScript writes it (wire.py says why): without a backslash before each slash.
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

-- Node's forceClean removes a worker from `workers` and puts its job into `failed`, but does not delete its record.
local function is_filed(name)
    local mark = '"worker":' .. quote(name)
    for _, record in ipairs(redis.call('LRANGE', failed, -FILED_AMONG, -1)) do
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
        give_up(id, head.queue, raw, 'another program removed its worker without settling the job')
        return head.queue, 'failed', raw
    end
    local key = job_key(head.queue, raw)
    local count = redis.call('HINCRBY', crashes, key, 1)
    redis.pcall('HSET', counted, key, math.floor(now / 1000) .. ' ' .. head.queue)
    redis.pcall('HINCRBY', totals, 'crashed', 1)
    if count >= limit then
        give_up(id, head.queue, raw, 'its worker died while it ran, ' .. count .. ' times')
        return head.queue, 'failed', raw
    end
    if type(redis.pcall('LPUSH', namespace .. ':queue:' .. head.queue, raw)) == 'table' then
        give_up(id, head.queue, raw, 'its worker died while it ran, and the key of its queue is not a list')
        return head.queue, 'failed', raw
    end
    return head.queue, 'back', raw
end

-- Redis's clock was set back: no lease may last longer than one that begins now (three times ARGV 6), and a timed pause
-- ends after the time that was left of it.
local function after_set_back(by)
    local longest = now + 3 * ARGV[6]
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '(' .. longest, '+inf')) do
        redis.call('ZADD', leases, longest, id)
    end
    local names = redis.pcall('SMEMBERS', queues)
    for _, queue in ipairs(names.err and {} or names) do
        local paused = namespace .. ':py:paused:' .. queue
        local left = redis.call('PTTL', paused)
        if left > 0 then redis.call('PEXPIRE', paused, math.max(1, left - by)) end
    end
end

-- Every worker calls this twice a second. After a long gap without calls, Redis was down, and no worker could send a
-- heartbeat either: the first call would find every lease ended and count a crash for every running job. So live
-- workers first get time to renew their leases.
local function is_too_early()
    local looked = tonumber(redis.pcall('HGET', reaping, 'looked'))
    if looked and looked > now + CLOCK_SLACK then after_set_back(looked - now) end
    redis.pcall('HSET', reaping, 'looked', now)
    if looked and now - looked > tonumber(ARGV[5]) then redis.pcall('HSET', reaping, 'from', now + ARGV[6]) end
    local from = tonumber(redis.pcall('HGET', reaping, 'from')) or 0
    return now < from and from <= now + ARGV[6]
end

allow_when_full(leases)
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
