-- Retry these failed jobs: move them from `failed` to the ends of their queues.
--
-- A record is identified by its exact text. So two callers that request the same retry move the job once, and no call
-- moves a record that has taken the index of another. It is removed from `failed` last: if its queue's key is not a
-- list, it stays.
--
-- KEYS  failed, queues, then for each record queue:QUEUE
-- ARGV  1: 1 or -1, from which end of `failed` to search   then for each record its text, its queue's name, its job
-- Returns for each 1, or 0: it was no longer there; or -1: the queue's key is not a list.
-- prelude.lua is put before this.
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
