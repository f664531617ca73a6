-- Heartbeat of these workers: renew their leases.
--
-- KEYS  workers:heartbeat, py:leases, workers, then for each worker worker:ping:NAME
-- ARGV  1: the lease (ms)   2: JSON [ID …]   3: heartbeat as Ruby writes it   4: JSON [ping as Node writes it …]
-- Returns {unix seconds, the index (from 1) of each worker that is lost}: reaped, or removed by another program.
-- A lost worker is not registered again: another worker may already have claimed its job.
-- prelude.lua is put before this.
local ids, pings = cjson.decode(ARGV[2]), cjson.decode(ARGV[4])
local now = now_ms()
local until_ms = now + tonumber(ARGV[1])
local answer = {math.floor(now / 1000)}
allow_when_full(KEYS[3])
for i, id in ipairs(ids) do
    if redis.call('ZSCORE', KEYS[2], id) and redis.call('SISMEMBER', KEYS[3], id) == 1 then
        redis.call('ZADD', KEYS[2], until_ms, id)
        redis.call('HSET', KEYS[1], id, ARGV[3])
        redis.call('SET', KEYS[3 + i], pings[i])
    else
        answer[#answer + 1] = i
    end
end
return answer
