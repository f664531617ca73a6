-- Put jobs into their queues, or plan them for a second; each id once, however often the call is repeated.
--
-- KEYS  queues, py:seen, py:seen:before, delayed_queue_schedule, then those that the jobs name by their numbers
-- ARGV  1: how long ids are remembered at least (ms)
--       2: JSON, for each job [raw, queue's name, number of queue:QUEUE, digest of its id or "",
--          TS or 0, number of delayed:TS, number of timestamps:RAW, number of py:unique:… or 0, id, lock's ms]
-- Returns for each job 1, or 0: an id that was there already, or a lock that another job of its kind holds.
local queues, seen, before, schedule = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local kept = tonumber(ARGV[1])

-- Ids are remembered in two sets. When the younger is as old as it should get it becomes the older one, which goes away
-- by itself: nothing has to be tidied up.
local left = redis.call('PTTL', seen)
if left >= 0 and left < kept then
    redis.call('UNLINK', before)
    redis.call('RENAME', seen, before)
end
local fresh = left < kept

local function is_known(digest)
    return redis.call('SISMEMBER', seen, digest) == 1 or redis.call('SISMEMBER', before, digest) == 1
end

local function may_be_one_of_its_kind(lock, id, ms)
    return lock == 0 or redis.call('SET', KEYS[lock], id, 'NX', 'PX', ms)
end

local named = {}
local results = {}
for i, job in ipairs(cjson.decode(ARGV[2])) do
    local raw, name, queue, digest, second, delayed, timestamps, lock, id, ms = unpack(job)
    results[i] = 0
    if not (digest ~= '' and is_known(digest)) and may_be_one_of_its_kind(lock, id, ms) then
        results[i] = 1
        if digest ~= '' then redis.call('SADD', seen, digest) end
        if second == 0 then
            if not named[name] then
                redis.call('SADD', queues, name)
                named[name] = true
            end
            redis.call('RPUSH', KEYS[queue], raw)
        else
            redis.call('RPUSH', KEYS[delayed], raw)
            redis.call('SADD', KEYS[timestamps], 'delayed:' .. second)
            redis.call('ZADD', schedule, second, second)
        end
    end
end
if fresh and redis.call('EXISTS', seen) == 1 then
    redis.call('PEXPIRE', seen, 2 * kept)
end
return results
