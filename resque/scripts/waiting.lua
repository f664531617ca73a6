-- How many jobs wait in all queues together. One call, because to ask for each queue costs the asker a hundred times as
-- much.
--
-- KEYS  queues; the others are made of what is found in it   ARGV  what comes before a queue's name in its key
-- Returns {jobs, queues}. What is no list holds no jobs.
-- Before this stands prelude.lua.
local names = redis.pcall('SMEMBERS', KEYS[1])
local jobs = 0
for _, name in ipairs(names) do
    local length = redis.pcall('LLEN', ARGV[1] .. name)
    if type(length) == 'number' then jobs = jobs + length end
end
return {jobs, #names}
