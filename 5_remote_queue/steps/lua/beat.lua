-- Extend the deadline of these slots. A slot whose lease has ended stays removed.
-- KEYS  py:leases, workers   ARGV  the lease (ms), 1 for new slots, ID, …
local time = redis.call('TIME')
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for i = 3, #ARGV do
    redis.call('ZADD', KEYS[1], ARGV[2] == '1' and 'NX' or 'XX', deadline, ARGV[i])
    if ARGV[2] == '1' then redis.call('SADD', KEYS[2], ARGV[i]) end
end
