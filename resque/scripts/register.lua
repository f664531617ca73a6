-- Register these workers. Their heartbeats are written first, as in Ruby, so that no program prunes them as dead.
--
-- KEYS  workers:heartbeat, py:leases, workers, then for each worker worker:ID:started, worker:ping:NAME
-- ARGV  1: the lease (ms)   2: JSON [ID …]   3: heartbeat as Ruby writes it   4: started, as Ruby writes it
--       5: JSON [ping as Node writes it …]
-- Returns unix seconds.
-- prelude.lua is put before this.
local ids, pings = cjson.decode(ARGV[2]), cjson.decode(ARGV[5])
local now = now_ms()
local until_ms = now + tonumber(ARGV[1])
allow_when_full(KEYS[3])
for i, id in ipairs(ids) do
    redis.call('HSET', KEYS[1], id, ARGV[3])
    redis.call('SET', KEYS[3 + 2 * i], pings[i])
    redis.call('ZADD', KEYS[2], until_ms, id)
    redis.call('SET', KEYS[2 + 2 * i], ARGV[4])
    redis.call('SADD', KEYS[3], id)
end
return math.floor(now / 1000)
