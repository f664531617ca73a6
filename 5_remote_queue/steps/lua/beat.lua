-- Extend the deadline of these slots. A slot whose lease has ended stays removed until its next claim.
-- KEYS  py:leases   ARGV  the lease (ms), ID, …
local time = redis.call('TIME')
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', deadline, ARGV[i]) end
