-- These failed jobs are to be tried again: from `failed` to the ends of their queues.
--
-- A record is known by its exact text, so two people who ask for the same at the same time do it once, and nobody hits
-- the record that has taken the place of another. It leaves `failed` last: should its queue be no list, it stays.
--
-- KEYS  failed, queues, then for each record queue:QUEUE
-- ARGV  1: 1 or -1, the end of `failed` from which to look   then for each record its text, its queue's name, its job
-- Returns for each 1, or 0: it was not there any more; or -1: what is under the queue's key is no list.
-- Before this stands prelude.lua.
local failed, queues = KEYS[1], KEYS[2]
local results = {}
for i = 1, #KEYS - 2 do
    local record, name, raw = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
    results[i] = 0
    if redis.call('LPOS', failed, record, 'RANK', ARGV[1]) then
        local pushed = redis.pcall('RPUSH', KEYS[2 + i], raw)
        if type(pushed) == 'number' then
            redis.call('LREM', failed, ARGV[1], record)
            redis.call('SADD', queues, name)
            results[i] = 1
        else
            results[i] = -1
        end
    end
end
return results
