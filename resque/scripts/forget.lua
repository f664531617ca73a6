-- Forget the attempts and crashes of jobs that are gone: a worker of another program has finished the job, or a person
-- has removed it, and neither knows our counts. An equal job without an id would begin with them.
--
-- A job is gone if it was due a while ago and is in none of its places: its queue is empty, the second to which it was
-- delayed has no jobs, and no worker of ours runs it.
--
-- KEYS  py:counted, py:attempts, py:crashes, py:leases; the others are derived from these
-- ARGV  1: namespace   2: where the last call ended   3: how many jobs to look at   4: how long a job must have been due
--       (s)   5: after how long counts are forgotten in any case (s)
-- Returns {where to go on; 0 at the end, how many jobs were forgotten}.
-- prelude.lua is put before this.
local counted, attempts, crashes, leases = unpack(KEYS)
local namespace, grace, longest = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[5])
local now = tonumber(redis.call('TIME')[1])
local running -- the jobs that our workers run; read only when needed

local function is_running(key)
    if not running then
        running = {}
        for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
            local record = redis.pcall('GET', namespace .. ':worker:' .. id)
            local head, raw = split(type(record) == 'string' and record or '')
            if head then running[job_key(head.queue, raw)] = true end
        end
    end
    return running[key]
end

local function is_gone(key, second, queue)
    local age = now - second
    return age > longest or (age > grace
        and redis.call('EXISTS', namespace .. ':queue:' .. queue, namespace .. ':delayed:' .. second) == 0
        and not is_running(key))
end

local cursor, found = unpack(redis.call('HSCAN', counted, ARGV[2], 'COUNT', ARGV[3]))
local forgotten = 0
for i = 1, #found, 2 do
    local key = found[i]
    local second, queue = string.match(found[i + 1], '^(%d+) (.*)$')
    local is_counted = redis.call('HEXISTS', attempts, key) == 1 or redis.call('HEXISTS', crashes, key) == 1
    if not (is_counted and second) then
        redis.call('HDEL', counted, key)
    elseif is_gone(key, tonumber(second), queue) then
        for _, hash in ipairs({counted, attempts, crashes}) do redis.call('HDEL', hash, key) end
        forgotten = forgotten + 1
    end
end
return {cursor, forgotten}
