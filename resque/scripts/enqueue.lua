-- Put jobs into their queues, or delay them until a second. A repeated call enqueues each id only once.
--
-- KEYS  queues, py:seen, py:seen:before, delayed_queue_schedule, then the keys that the jobs refer to by index
-- ARGV  1: how long ids are remembered at least (ms)   2: JSON [name …], the queues
--       3: JSON, for each job [RAW, digest of its id or "", index of queue:QUEUE or of delayed:TS,
--          TS or 0, index of timestamps:RAW, index of py:unique:… or 0, id, lock's ms]; omit zeros at the end
-- Returns for each job 1; or 0: its id was enqueued already, or another job holds its lock; or Redis's error.
-- prelude.lua is put before this.
local queues, seen, before, schedule = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local kept, names = tonumber(ARGV[1]), cjson.decode(ARGV[2])

-- Ids are remembered in two sets. When the newer set has reached its age limit it replaces the older one, which expires
-- by itself, so no cleaning up is needed.
local left = redis.call('PTTL', seen)
if left >= 0 and left < kept then
    redis.call('UNLINK', before)
    redis.call('RENAME', seen, before)
end
local jobs, digests = cjson.decode(ARGV[3]), {}
for i, job in ipairs(jobs) do digests[i] = job[2] end
local known = redis.call('SMISMEMBER', seen, unpack(digests))
local known_before = redis.call('SMISMEMBER', before, unpack(digests))

local fresh = {}
local function is_known(i)
    return digests[i] ~= '' and (fresh[digests[i]] or known[i] == 1 or known_before[i] == 1)
end

local function acquire_unique_lock(lock, id, ms)
    if not lock or lock == 0 or redis.call('SET', KEYS[lock], id, 'NX', 'PX', ms) then return true end
    if redis.call('PTTL', KEYS[lock]) > ms then redis.call('PEXPIRE', KEYS[lock], ms) end -- the clock was set back
    return false
end

-- Jobs for the same list are pushed together.
local results, lists = {}, {}
for i, job in ipairs(jobs) do
    local raw, digest, list, second, timestamps, lock, id, ms = unpack(job)
    results[i] = 0
    if not is_known(i) and acquire_unique_lock(lock, id, ms) then
        fresh[digest] = true
        local batch = lists[list] or {raws = {}, digests = {}, numbers = {}, second = second, timestamps = {}, locks = {}}
        lists[list] = batch
        batch.raws[#batch.raws + 1] = raw
        batch.numbers[#batch.numbers + 1] = i
        batch.timestamps[#batch.timestamps + 1] = timestamps
        if lock and lock > 0 then batch.locks[#batch.locks + 1] = KEYS[lock] end
        if digest ~= '' then batch.digests[#batch.digests + 1] = digest end
    end
end

-- First the jobs, then their ids: an id without its job would make the repeated call drop the job.
for list, batch in pairs(lists) do
    local pushed = redis.pcall('RPUSH', KEYS[list], unpack(batch.raws))
    if type(pushed) == 'table' then
        for _, lock in ipairs(batch.locks) do redis.pcall('DEL', lock) end
    end
    -- then every write would fail
    if type(pushed) == 'table' and string.find(pushed.err, '^READONLY') then return pushed end
    for _, i in ipairs(batch.numbers) do results[i] = type(pushed) == 'table' and pushed.err or 1 end
    if type(pushed) == 'number' then
        if #batch.digests > 0 then redis.call('SADD', seen, unpack(batch.digests)) end
        if batch.second and batch.second > 0 then
            for _, timestamps in ipairs(batch.timestamps) do
                redis.call('SADD', KEYS[timestamps], 'delayed:' .. batch.second)
            end
            redis.call('ZADD', schedule, batch.second, batch.second)
        end
    end
end
if #names > 0 then redis.pcall('SADD', queues, unpack(names)) end
if left < kept and redis.call('EXISTS', seen) == 1 then redis.call('PEXPIRE', seen, 2 * kept) end
return results
