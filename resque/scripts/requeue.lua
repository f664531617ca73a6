-- Retry these failed jobs: move them from `failed` to the ends of their queues.
--
-- A record is identified by its exact text. So two callers that request the same retry move the job once, and no call
-- moves a record that has taken the index of another. It is removed from `failed` last: if its queue's key is not a
-- list, it stays.
--
-- A job whose worker died may have killed it. It then counts as a job with SUSPECT crashes, so claim.lua runs it alone.
--
-- KEYS  failed, queues, py:crashes, py:counted, then for each record queue:QUEUE
-- ARGV  1: 1 or -1, from which end of `failed` to search   then for each record its text, its queue's name, its job,
--       1 if its worker died
-- Returns for each 1, or 0: it was no longer there; or -1: the queue's key is not a list.
-- prelude.lua is put before this.
local failed, queues, crashes, counted = unpack(KEYS, 1, 4)
local now = math.floor(now_ms() / 1000)
local results = {}
for i = 1, #KEYS - 4 do
    local record, name, raw, died = unpack(ARGV, 4 * i - 2, 4 * i + 1)
    results[i] = 0
    if redis.call('LPOS', failed, record, 'RANK', ARGV[1]) then
        local pushed = redis.pcall('RPUSH', KEYS[4 + i], raw)
        if type(pushed) == 'number' then
            redis.call('LREM', failed, ARGV[1], record)
            redis.call('SADD', queues, name)
            if died == '1' then
                local key = job_key(name, raw)
                redis.pcall('HSET', crashes, key, SUSPECT)
                redis.pcall('HSET', counted, key, now .. ' ' .. name)
            end
            results[i] = 1
        else
            results[i] = -1
        end
    end
end
return results
