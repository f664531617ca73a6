-- How many jobs wait in all queues together. One script, because one LLEN per queue costs the client a hundred times as
-- much.
--
-- KEYS  queues; the others are derived from its members   ARGV  the prefix of a queue's key
-- Returns {jobs, queues}. A key that is not a list counts as empty.
-- prelude.lua is put before this.
local names = redis.pcall('SMEMBERS', KEYS[1])
local jobs = 0
for _, name in ipairs(names) do
    local length = redis.pcall('LLEN', ARGV[1] .. name)
    if type(length) == 'number' then jobs = jobs + length end
end
return {jobs, #names}
